from __future__ import annotations

import os
import subprocess
import sys

from engines.canonical import canonical
from engines.fingerprint import library, machine, memory_bucket, processor

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
cpu MHz\t\t: 2700.000
flags\t\t: fpu vme sse sse2 ssse3 fma sse4_1 avx avx2 smep smap avx512_vnni amx_bf16 amx_tile
bogomips\t: 5400.00

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
cpu MHz\t\t: 1200.123
flags\t\t: fpu vme sse sse2 ssse3 fma sse4_1 avx avx2 smep smap avx512_vnni amx_bf16 amx_tile
"""

ORIN = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes asimdhp cpuid asimdrdm asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1
"""

BIG_LITTLE = ORIN + "\n" + ORIN.replace("0xd42", "0xd05")


def test_an_intel_processor_is_its_model_and_vector_flags():
    assert processor(X86) == {
        "processor": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "vectors": "amx_bf16 amx_tile avx avx2 avx512_vnni fma sse4_1 ssse3",
    }


def test_what_changes_by_itself_does_not_count():
    assert processor(X86.replace("2700.000", "800.000")) == processor(X86)


def test_one_flag_less_counts():
    assert processor(X86.replace(" amx_bf16", "")) != processor(X86)


def test_an_arm_processor_is_named_by_its_parts():
    assert processor(ORIN) == {
        "processor": "0x41 8 0x0 0xd42",
        "vectors": "asimd asimddp asimdhp asimdrdm",
    }


def test_different_cores_are_all_named():
    assert processor(BIG_LITTLE)["processor"] == "0x41 8 0x0 0xd05; 0x41 8 0x0 0xd42"


def test_an_unreadable_text_is_no_processor():
    assert processor("") == processor("::\n\n:x:\n\t") == {"processor": "", "vectors": ""}


def test_memory_that_the_kernel_keeps_back_makes_no_difference():
    assert memory_bucket(8 << 30) == memory_bucket((8 << 30) - 400 * (1 << 20)) == "8 GiB"
    assert memory_bucket(4 << 30) != memory_bucket(8 << 30)


def test_this_machine_is_the_same_each_time_and_fit_for_a_key():
    assert machine()["cores"] == str(len(os.sched_getaffinity(0)))
    assert machine()["processor"]
    code = "from engines.fingerprint import machine; print(sorted(machine().items()))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(sorted(machine().items()))
    canonical(machine())


def test_a_librarys_version_is_found_and_a_missing_one_is_empty():
    assert library("numpy").count(".") >= 1
    assert library("no-such-package-is-installed") == ""
