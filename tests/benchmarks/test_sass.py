"""The reader of disassembled kernels, on code written by hand: instructions, loops in loops, pipes."""

from electra_fast.benchmarks.ops.sass import Pipes, parse

# Four instructions, a loop of three with one of two in it, and the end.
CODE = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   S2R R7, SR_CTAID.X ;
        /*0020*/               @P0 IADD3 R0, R2, 0x7f, RZ ;
        /*0030*/                   MUFU.EX2 R3, R4 ;
.L_x_1:
        /*0040*/                   FFMA R3, R3, R4, R5 ;
.L_x_2:
        /*0050*/                   LDS.128 R4, [R8] ;
        /*0060*/               @P1 BRA `(.L_x_2) ;
        /*0070*/               @!P2 BRA `(.L_x_1) ;
        /*0080*/               @P3 BRA `(.L_x_4) ;
        /*0090*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24, !UPT ;
.L_x_4:
        /*00a0*/                   EXIT ;
.L_x_3:
        /*00b0*/                   BRA `(.L_x_3);
        /*00c0*/                   NOP;
"""


def test_loops_are_what_branches_lead_back_to():
    binary = parse(CODE, n_warps=4)
    assert [round(loop.instructions) for loop in binary.loops] == [2, 2]
    assert binary.parents == (-1, 0)
    assert binary.straight.instructions == 8 and binary.n_instructions == 12


def test_the_work_of_a_program_counts_loops_as_often_as_they_run():
    binary = parse(CODE, n_warps=4)
    assert binary.work((0.0, 5.0)) == binary.straight
    assert binary.work((3.0, 5.0)).instructions == 8 + 3 * (2 + 5 * 2)


def test_pipes_of_an_sm():
    straight, loops = parse(CODE, n_warps=8).straight, parse(CODE, n_warps=8).loops
    # Eight warps are two for each of four schedulers. 64 x 256 x 16 multiply-adds of four warps, 2,048 a cycle, twice.
    assert straight == Pipes(instructions=8, issue=16, alu=4, mufu=16, shared=0, tensor=256)
    assert loops[1].shared == 8 * 32 * 16 / 128
