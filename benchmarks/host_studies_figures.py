"""What the studies of PaddleOCR-VL on a MetaX C500 measured, for benchmarks/host_studies.py.

Seeds 000, 001 and 002 are the studies themselves (PaddlePaddle/community pull requests 1360 and
1351, PaddlePaddle/FastDeploy pull request 7619). What else is here was published beside them:

- NOTES: the notes of seed 000's author, github.com/oldzhu/paddle-mx,
  task2-optimization/profiling (actions 8.2 and 8.3, phase 1 report), 2026-04;
- REPORT: seed 001's report, PaddlePaddle/community,
  rfcs/FastDeploy/20260423_paddleocr_vl_metax_stage1_report_for_fastdeploy.md;
- WEEKLY: a weekly report of the author of seeds 001 and 002, PFCCLab/Camp,
  WeeklyReports/Hackathon_10th/ERNIEPartner_13_Dryoung95, 2026-05-05 to 05-11;
- FOURTH: another study of the same model, framework and machine, PaddlePaddle/community,
  rfcs/FastDeploy/20260526_paddleocr_vl_metax_stage1_report_for_fastdeploy.md;
- CODE: FastDeploy before the pull request (19727f5) and in it (162c6f5), Apache-2.0.

Times in seconds.
"""

from dataclasses import dataclass

# ---- seed 000: 628 prompt tokens, 165 answered, mcTracer attached
TOKENS, STEPS = 165, 164
WALL_S, BUSY_S = 4.38, 0.8543
AGGREGATE = {1: 45.9, 2: 65.2, 4: 87.8}  # tok/s by clients, another run than the profiled one
COMPILING_TOKENS_PER_S = 10.0  # what "+780 %" starts from
COLD_S, WARM_S = 135.2, 4.28

# ---- NOTES: text prompts, at most 64 tokens each, no tracer
ALONE = ((1.07, 50), (0.16, 7), (1.34, 64), (0.27, 12), (1.26, 59))  # seconds, tokens
PAIRS = ((64, 64), (64, 4), (6, 64), (64, 14), (64, 64))  # tokens, from latency x tok/s
PAIRS_S = ((1.46, 1.48), (1.41, 0.15), (0.17, 1.46), (1.39, 0.37), (1.44, 1.46))
PAIRS_TOKENS_PER_S = (86.5, 48.3, 47.8, 56.1, 87.5)  # their mean is AGGREGATE[2]
IMAGES = ((3.41, 158), (3.48, 158))  # the image request again, cache filled, no tracer
AGAIN_S = 4.33  # the second warm run of the first session
RESTARTED = (4.28, 166)  # the first image request of a new process, cache filled

# ---- seed 001 and REPORT: 228 prompt tokens, about 9 answered
SHORT_STEPS = 8
ODD_ROW = (1.7370, 0.3333, 8.0539)  # mean, P50, P95 of ten requests
CLEAN_MEANS = (0.3577, 0.3648, 0.3590, 0.3727, 0.3561)  # the other five rows of ten
SEQUENTIAL_S, SEQUENTIAL_PER_S = 0.3572, 2.7987
FOUR_S, FOUR_PER_S = 0.7347, 5.3036
FOUR_CLIENTS, FOUR_ROUNDS = 4, 5

# ---- seed 002, and WEEKLY for later versions of the same work
SINGLE_S = (7.4039, 7.3870)
GAIN = {"mean": -0.0607, "P50": -0.0597, "P95": -0.0973}  # of 4x8
WEEKLY_FOUR_S = (0.5757, 0.538)  # mean of 4x8, before and later
WEEKLY_P95_S = (0.669, 0.688)
ENCODER_CACHED_S = 0.2707  # sequential mean once a repeated image is not encoded again

# ---- FOURTH: 200 decode steps under paddle.profiler
FOURTH_STEPS, FOURTH_KERNELS, FOURTH_COPIES = 200, 43_585, 4_801
FOURTH_BUSY_S, FOURTH_STEP_S, FOURTH_UNTRACED_S = 1.077, 0.025, 0.021


@dataclass(frozen=True)
class Change:
    """One of the changes of seed 002, and what of one request it removes, counted in CODE.

    Attributes
    ----------
    number : int
        As the pull request lists them.
    name : str
    launches, syncs : int
        Small device operations that are no longer issued, and copies to the host that are no
        longer waited for. One image, max-prefill path; views of tensors count as none.
    """

    number: int
    name: str
    launches: int
    syncs: int


VISION_LAYERS = 27
CHANGES = (
    # a permuted copy becomes an index copy and its upload; a concatenation of one is gone
    Change(1, "projector packing", 1, 0),
    # projector: four slices and two divisions of the grid, read back three times; worker: a
    # cumulative sum and a cast
    Change(2, "grid_thw from the host", 8, 3),
    # four slices and three products of the grid, upload, copy, interpolation, copy, tile, cast,
    # concatenation; six reads of a size
    Change(3, "position embedding from a cache", 14, 6),
    # q, k, v are no longer permuted as one in each layer
    Change(4, "batch=1 path", VISION_LAYERS, 0),
    # q and k are cast as one in each layer
    Change(5, "fp32 rotary", VISION_LAYERS, 0),
)
