"""What a kernel without the cross test, as all were before 2007, says of the /proc/vmcore here."""

from farcore.arch import Policy, check
from farcore.hosts import this_host

with open("/proc/vmcore", "rb") as file:
    verdict = check(file.read(64), this_host(), Policy("kernel"), cross={}).kernel
failed = ",".join(term.name for term in verdict.terms if not term.ok)
print(f"WITHOUT_CROSS={'accepted' if verdict.accepted else f'refused:{failed}'}", flush=True)
