"""benchmark.py in a process of its own."""

import csv

import pytest


@pytest.mark.slow
def test_a_benchmark_is_a_line_of_the_csv_with_its_ratio_to_the_plain_way(run_script, tmp_path):
    (tmp_path / "README.md").write_text("<!-- benchmark -->\n<!-- /benchmark -->\n")
    done = run_script(
        "benchmark.py", "--WHAT=click,unet evaluation", "--PICTURES=16", "--REPEATS=1", "--README=README.md"
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "results" / "benchmark.csv") as file:
        *evaluations, line = csv.DictReader(file)
    assert list(line) == "what,unit,ours,plain,ratio,peak_memory_mb,machine,device,torch,threads,precision".split(",")
    assert line["unit"] == "ms" and line["device"] == "cpu"
    # rounding of the times in the file
    assert float(line["ratio"]) == pytest.approx(float(line["plain"]) / float(line["ours"]), rel=0.02)
    assert 100 < float(line["peak_memory_mb"]) < 4000
    assert [evaluation["what"] for evaluation in evaluations] == [
        f"U-Net evaluation, {work} px" for work in ("16 of 160", "32 of 160", "64 of 160", "16 of 224", "16 of 320")
    ]
    assert {evaluation["precision"] for evaluation in evaluations} == {f"{line['precision']} against fp32"}
    # Four times the pictures take no more memory: 16 are a batch.
    assert float(evaluations[2]["peak_memory_mb"]) < 1.2 * float(evaluations[0]["peak_memory_mb"])
    table = (tmp_path / "README.md").read_text()
    assert line["ours"] in table and "16 of 160" in table and "64 of" not in table
    assert (tmp_path / "images" / "benchmark.png").exists()
    again = run_script("benchmark.py", "--WHAT=click", "--PICTURES=16", "--REPEATS=1")
    assert again.returncode == 0, again.stderr
    with open(tmp_path / "results" / "benchmark.csv") as file:  # what was not measured again is kept
        assert list(csv.DictReader(file))[:-1] == evaluations


@pytest.mark.slow
def test_data_is_loaded_every_row_evaluated_and_a_script_started(run_script, tmp_path):
    what = "loader,clip evaluation,point evaluation,clipseg evaluation,predict,onnx unet,start predict.py"
    done = run_script("benchmark.py", f"--WHAT={what}", "--PICTURES=4", "--REPEATS=1", "--SCALES=1 x")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "results" / "benchmark.csv") as file:
        names = [line["what"] for line in csv.DictReader(file)]
    assert names[0] == "loader, 192 pictures, 128 px"
    assert [name.split(" evaluation")[0] for name in names[1:4]] == ["CLIP", "CLIPSeg", "PointCLIP"]
    assert names[4] == "predict.py, U-Net, 48 photos, 496 px wide"
    assert names[5:] == ["U-Net in onnxruntime, against PyTorch, 160 px", "start of predict.py, against import torch"]


def test_an_unknown_benchmark_is_refused(run_script):
    done = run_script("benchmark.py", "--WHAT=tea")
    assert done.returncode == 1 and "WHAT = 'tea': must be one of 'loader'" in done.stderr
