// ranger: asks for ranges of one file and discards them, as fast as the server gives them. Prints `warm` when the warm-up is
// over, and one line of JSON in the end.
// One thread, epoll, connections that stay, one request under way on each. Bodies are discarded in the kernel (MSG_TRUNC),
// so that it takes little of the machine beside the server under test.
//
//   ranger -p PORT -u PATH -s SIZE [-b BLOCK] [-c CONNECTIONS] [-d SECONDS] [-w SECONDS] [-V FILE] [-T]
//
//   -b 0  the whole file without Range, again and again       -w  warm-up, left out of the figures
//   -V    compare every byte with FILE instead                -T  TLS
//
// Exit status: 2 cannot run, 4 wrong bytes, 5 anything else went wrong with a request.
#define _GNU_SOURCE
#include "wire.h"
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
	PAGE = 4096,
	LATENCIES = 4000000, // one counter a microsecond
	TURNS = 4, // reads of one connection before the next has its turn
};

struct reader {
	struct wire wire;
	int in_body;
	int64_t position; // in the file, of the next byte
	int64_t left; // of the body
	double asked;
};

static struct {
	const char *path;
	int port, tls;
	int64_t size, block;
} wanted = { .path = "/", .block = PAGE };

static struct {
	uint64_t requests, bytes, errors, slowest;
	uint32_t *latency;
} seen;

static int poll_fd;
static double warm_until;
static const char *expected; // the file, mapped, with -V
static char scratch[1 << 20];

static uint64_t draw(void)
{
	static uint64_t x = 88172645463325252ull; // xorshift64: every run asks for the same ranges

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void ask(struct reader *r)
{
	char request[1024];
	int length;

	r->position = 0;
	if (wanted.block) {
		r->position = draw() % ((wanted.size - wanted.block) / PAGE + 1) * PAGE;
		length = snprintf(request, sizeof request,
				  "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nRange: bytes=%lld-%lld\r\n\r\n", wanted.path,
				  wanted.port, (long long)r->position, (long long)(r->position + wanted.block - 1));
	} else {
		length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", wanted.path,
				  wanted.port);
	}
	r->wire.have = r->in_body = 0;
	r->asked = now();
	if (!put(&r->wire, request, length))
		seen.errors++;
}

static void begin(struct reader *r)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = r };

	dial(&r->wire, wanted.port, wanted.tls);
	if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, r->wire.fd, &event))
		die("epoll_ctl");
	ask(r);
}

static void lost(struct reader *r)
{
	if (!seen.errors++)
		fprintf(stderr, "a connection was lost\n");
	close(r->wire.fd);
	begin(r);
}

static void received(struct reader *r, const char *bytes, int64_t count)
{
	if (expected && memcmp(bytes, expected + r->position, count)) {
		fprintf(stderr, "wrong bytes in [%lld, +%lld)\n", (long long)r->position, (long long)count);
		exit(4);
	}
	r->position += count;
	r->left -= count;
	if (now() >= warm_until)
		seen.bytes += count;
}

static void answered(struct reader *r)
{
	double end = now();
	uint64_t us = (end - r->asked) * 1e6;

	if (end >= warm_until) {
		seen.requests++;
		seen.latency[us < LATENCIES ? us : LATENCIES - 1]++;
		if (us > seen.slowest)
			seen.slowest = us;
	}
	ask(r);
}

static void read_head(struct reader *r, char *body)
{
	const char *length = field(&r->wire, "\r\nContent-Length:");

	if (status_of(&r->wire) != (wanted.block ? 206 : 200) || !length) {
		fprintf(stderr, "unexpected answer: %.300s\n", r->wire.head);
		exit(5);
	}
	r->left = atoll(length);
	if (r->left != (wanted.block ? wanted.block : wanted.size)) {
		fprintf(stderr, "an answer of %lld bytes\n", (long long)r->left);
		exit(5);
	}
	r->in_body = 1;
	received(r, body, r->wire.head + r->wire.have - body);
}

// Whether there may be more to read.
static int step(struct reader *r)
{
	char *body;
	int state;
	ssize_t got;

	if (!r->in_body) {
		state = take_head(&r->wire, &body);
		if (state < 0)
			lost(r);
		if (state <= 0)
			return 0;
		read_head(r, body);
	}
	if (r->left) {
		size_t most = expected ? sizeof scratch : 1 << 30;

		got = take(&r->wire, expected ? scratch : NULL, r->left < (int64_t)most ? (size_t)r->left : most);
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got <= 0) {
			lost(r);
			return 0;
		}
		received(r, scratch, got);
	}
	if (r->left)
		return 1;
	answered(r);
	return 0;
}

static void expect(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	expected = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (expected == MAP_FAILED || st.st_size < wanted.size)
		die(path);
}

static int percentile(double part)
{
	uint64_t rank = seen.requests * part, sum = 0;

	for (int us = 0; us < LATENCIES; us++) {
		sum += seen.latency[us];
		if (sum > rank)
			return us;
	}
	return 0;
}

static void report(double seconds)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	printf("{\"requests\": %llu, \"bytes\": %llu, \"seconds\": %.4f, \"p50_us\": %d, \"p99_us\": %d, \"max_us\": %llu, "
	       "\"client_cpu\": %.4f}\n",
	       (unsigned long long)seen.requests, (unsigned long long)seen.bytes, seconds, percentile(.5), percentile(.99),
	       (unsigned long long)seen.slowest,
	       used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6);
}

static void run(double until)
{
	struct epoll_event events[256];
	int warm = 0;

	while (now() < until) {
		if (!warm && now() >= warm_until) {
			warm = 1;
			puts("warm");
			fflush(stdout);
		}
		int count = epoll_wait(poll_fd, events, 256, 5);

		for (int i = 0; i < count; i++)
			for (int turn = 0; turn < TURNS && step(events[i].data.ptr); turn++)
				;
	}
}

int main(int argc, char **argv)
{
	int option, connections = 16;
	double seconds = 3, warm_up = 0.3;
	const char *verify = NULL;

	while ((option = getopt(argc, argv, "p:u:s:b:c:d:w:V:T")) != -1) {
		switch (option) {
		case 'p': wanted.port = atoi(optarg); break;
		case 'u': wanted.path = optarg; break;
		case 's': wanted.size = atoll(optarg); break;
		case 'b': wanted.block = atoll(optarg); break;
		case 'c': connections = atoi(optarg); break;
		case 'd': seconds = atof(optarg); break;
		case 'w': warm_up = atof(optarg); break;
		case 'V': verify = optarg; break;
		case 'T': wanted.tls = 1; break;
		default: return 2;
		}
	}
	if (wanted.size < wanted.block || connections < 1)
		return 2;
	if (verify)
		expect(verify);
	struct reader *readers = calloc(connections, sizeof *readers);
	seen.latency = calloc(LATENCIES, sizeof *seen.latency);
	poll_fd = epoll_create1(0);
	if (!readers || !seen.latency || poll_fd < 0)
		die("start");
	warm_until = now() + warm_up;
	for (int i = 0; i < connections; i++)
		begin(&readers[i]);
	run(warm_until + seconds);
	report(now() - warm_until);
	return seen.errors ? 5 : 0;
}
