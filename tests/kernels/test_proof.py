"""What `make kernels` counts, and what it fails on, of kernels that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("triton")

from tools.kernels.compiled import Facts, loop_instructions, reductions
from tools.kernels.proof import Proof, broken, different_code
from tools.kernels.roofline import GPUS, Cost, bound_us, roof_us
from tools.kernels.workload import Workload

H100 = GPUS["H100"]
GOOD = Facts(
    kernel="k",
    target="sm_90",
    num_warps=4,
    registers=100,
    spilled_bytes=0,
    shared_bytes=50 << 10,
    mma={"HGMMA.64x64x16.F32": 4},
    loads={"LDG.E.128": 8, "LDG.E.64.CONSTANT": 1},
    num_instructions=1000,
    loop_instructions=200,
)
SOUND = Workload(
    op="linear",
    shape="1 x 4096",
    make=lambda device: pytest.fail("not called"),
    cost=Cost(33_500_000, 67_000_000),
    num_programs=132,
    bytes_in_flight=48 << 10,
    expected_fraction=0.7,
    reason="",
    uses_mma=True,
    needs_wide_loads=True,
    max_loop_instructions=256,
)


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ([], "no kernel"),
        ([replace(GOOD, spilled_bytes=8)], "spills 8 bytes"),
        ([GOOD, replace(GOOD, spilled_bytes=8, num_instructions=9)], "spills 8 bytes"),
        ([replace(GOOD, shared_bytes=228 << 10)], "233472 of 232448 shared"),
        ([replace(GOOD, mma={})], "no matrix instruction"),
        ([replace(GOOD, loads={"LDG.E.64": 2, "LDG.E.128": 1})], "less than 128 bits"),
        ([replace(GOOD, loads={"LDG.E.U16": 2, "LDG.E": 9})], "less than 128 bits"),
        ([replace(GOOD, loop_instructions=257)], "257 instructions in its hot loop, not 256"),
    ],
)
def test_a_broken_promise_is_named(facts, complaint):
    assert list(broken(SOUND, [GOOD])) == []
    assert any(complaint in each for each in broken(SOUND, facts))


def test_kernels_that_must_agree_share_their_matrix_instructions():
    small = Proof(replace(SOUND, same_code_as="4096 x 4096"), H100, [GOOD], [])
    large = Proof(replace(SOUND, shape="4096 x 4096"), H100, [GOOD], [])
    other = replace(large, facts=[replace(GOOD, mma={"HMMA.16816.F32": 9})])

    assert different_code([small, large]) == []
    [(found, difference)] = different_code([small, other])
    assert found is small
    assert "HMMA" in difference


def test_kernels_that_must_agree_sum_their_rows_alike():
    one_warp, two_warps = (
        replace(GOOD, reductions=reductions(IR.replace("[4, 1]", warps)))
        for warps in ("[8, 1]", "[4, 2]")
    )
    rows_of_64 = replace(GOOD, reductions=reductions(IR))
    small = Proof(replace(SOUND, same_code_as="4096 x 4096"), H100, [rows_of_64], [])
    large = Proof(replace(SOUND, shape="4096 x 4096"), H100, [one_warp], [])

    assert different_code([small, large]) == []
    [(_, difference)] = different_code([small, replace(large, facts=[two_warps])])
    assert "32 in #ttg.mma<{warpsPerCTA = [_, 2]}>" in difference


def test_the_roof_is_the_slower_of_memory_and_arithmetic():
    assert roof_us(Cost(3_350_000, 1), H100) == pytest.approx(1.0)
    assert roof_us(Cost(1, 989_000_000), H100) == pytest.approx(1.0)
    assert roof_us(Cost(1, 989_000_000, "fp8"), H100) == pytest.approx(989 / 1979)


def test_the_bound_grows_where_too_little_is_on_the_way_or_too_much_to_issue():
    cost = Cost(33_500_000)

    def bound(num_programs=132, bytes_in_flight=48 << 10, loop_turns=0, facts=GOOD):
        return bound_us(
            facts,
            H100,
            cost,
            num_programs=num_programs,
            bytes_in_flight=bytes_in_flight,
            loop_turns=loop_turns,
        )

    assert bound() == pytest.approx(roof_us(cost, H100))
    assert bound(bytes_in_flight=1 << 10) > 10 * bound()
    assert bound(num_programs=8) > 2 * bound()
    # 132 programs of 4 warps, 200 instructions a turn, 4 issued a cycle of each of 132.
    assert bound(loop_turns=1000) == pytest.approx(200 * 1000 / 1.755e9 * 1e6)
    straight = replace(GOOD, loop_instructions=0, num_instructions=500)
    assert bound(loop_turns=400, facts=straight) == bound(loop_turns=1000)


IR = """
#blocked = #ttg.blocked<{warpsPerCTA = [4]}>
#mma = #ttg.mma<{warpsPerCTA = [4, 1]}>
    }) : (tensor<64x32xf32, #mma>) -> tensor<64xf32, #ttg.slice<{dim = 1, parent = #mma}>>
"""
NVIDIA = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
.L_x_2:
        /*0020*/                   LDG.E.128 R4, [R8.64] ;
        /*0030*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0040*/               @P0 BRA `(.L_x_2) ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/                   EXIT ;
.L_x_3:
        /*0070*/                   BRA `(.L_x_3);
"""
AMD = """
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	global_load_dwordx4 v[0:3], v[4:5], off
	s_add_i32 s0, s0, 1
	s_cbranch_scc1 .LBB0_1
	s_endpgm
"""


@pytest.mark.parametrize(("assembly", "expected"), [(NVIDIA, 3), (AMD, 3), ("", 0)])
def test_the_hot_loop_is_the_longest_that_holds_no_other(assembly, expected):
    assert loop_instructions(assembly) == expected
