/* manymaps N: N read-faulted anonymous pages, that is N page-table entries for the one zero page; then runs on. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 1, sum = 0, i;
	volatile char *map = mmap(0, n * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return 1;
	madvise((void *)map, n * 4096, MADV_NOHUGEPAGE);
	for (i = 0; i < n; i++)
		sum += map[i * 4096];
	printf("READY manymaps %ld\n", n);
	fflush(stdout);
	for (;;)
		sum += map[(i++ % n) * 4096];
}
