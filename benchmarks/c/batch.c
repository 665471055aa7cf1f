// batch: sends a list of requests and waits for all the answers, again and again; prints one line of JSON.
// Every byte is copied to user space, as a client that wants the pages must. Connections are made beforehand.
//
//   batch -p PORT -i REQUESTS [-a ADDRESS] [-c CONNECTIONS] [-n PASSES] [-o BODIES]
//
//   -i  each request as it goes over the wire, after its length (4 bytes, little endian)
//   -a  of the server, in dotted decimal (127.0.0.1)
//   -o  write the bodies of one pass here, in the order in which they came
//
// Exit status: 2 cannot run, 5 something went wrong with a request.
#define _GNU_SOURCE
#include "wire.h"
#include <endian.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct asker {
	struct wire wire;
	enum { HEAD, COUNTED, SIZE_LINE, CHUNK, CHUNK_END, LAST } state;
	int64_t left; // of the body, or of the chunk
};

struct request {
	const char *bytes;
	uint32_t length;
};

static struct request *requests;
static int count, next, answers;
static int64_t received;
static FILE *bodies;
static char buffer[1 << 18];

static void wrong(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(5);
}

static void load(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	const char *at = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0), *end = at + st.st_size;
	if (at == MAP_FAILED)
		die(path);
	while (at < end) {
		uint32_t length;

		memcpy(&length, at, sizeof length);
		requests = realloc(requests, (count + 1) * sizeof *requests);
		requests[count++] = (struct request){ at + sizeof length, le32toh(length) };
		at += sizeof length + le32toh(length);
	}
}

static void ask(struct asker *a)
{
	a->state = HEAD;
	a->wire.have = 0;
	if (next == count)
		return;
	if (!put(&a->wire, requests[next].bytes, requests[next].length))
		wrong("a request could not be sent whole");
	next++;
}

static void keep(const char *bytes, int64_t length)
{
	received += length;
	if (bodies && fwrite(bytes, 1, length, bodies) != (size_t)length)
		die("write");
}

// One byte of the framing between chunks (RFC 9112, 7.1; extensions and trailers do not come).
static void frame(struct asker *a, char c)
{
	if (a->state == SIZE_LINE && c == '\n') {
		a->state = a->left ? CHUNK : LAST;
	} else if (a->state == SIZE_LINE && c != '\r') {
		a->left = a->left * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
	} else if (a->state == CHUNK_END && c == '\n') {
		a->state = SIZE_LINE;
		a->left = 0;
	}
}

// Whether the answer ends with these bytes.
static int digest(struct asker *a, const char *at, const char *end)
{
	while (at < end) {
		if (a->state == LAST)
			return *(end - 1) == '\n';
		if (a->state != COUNTED && a->state != CHUNK) {
			frame(a, *at++);
			continue;
		}
		int64_t piece = end - at < a->left ? end - at : a->left;

		keep(at, piece);
		at += piece;
		a->left -= piece;
		if (!a->left && a->state == COUNTED)
			return 1;
		if (!a->left)
			a->state = CHUNK_END;
	}
	return 0;
}

static void read_head(struct asker *a)
{
	const char *length = field(&a->wire, "\r\nContent-Length:");

	if (status_of(&a->wire) / 100 != 2) {
		fprintf(stderr, "unexpected answer: %.300s\n", a->wire.head);
		exit(5);
	}
	if (!length && !field(&a->wire, "\r\nTransfer-Encoding: chunked"))
		wrong("an answer without a length");
	a->left = length ? atoll(length) : 0;
	a->state = length ? COUNTED : SIZE_LINE;
}

static void step(struct asker *a)
{
	ssize_t got;
	char *body;
	int ended, state;

	if (a->state == HEAD) {
		state = take_head(&a->wire, &body);
		if (state < 0)
			wrong("a connection was lost");
		if (state == 0)
			return;
		read_head(a);
		ended = digest(a, body, a->wire.head + a->wire.have);
	} else {
		got = take(&a->wire, buffer, sizeof buffer);
		if (got < 0 && errno == EAGAIN)
			return;
		if (got <= 0)
			wrong("a connection was lost");
		ended = digest(a, buffer, buffer + got);
	}
	if (ended) {
		answers++;
		ask(a);
	}
}

static double pass(struct asker *askers, int connections, int poll_fd)
{
	struct epoll_event events[256];
	double begun = now();

	next = answers = received = 0;
	for (int i = 0; i < connections; i++)
		ask(&askers[i]);
	while (answers < count) {
		int ready = epoll_wait(poll_fd, events, 256, 30000);

		if (ready <= 0)
			wrong("no answer within 30 s");
		for (int i = 0; i < ready; i++)
			step(events[i].data.ptr);
	}
	return now() - begun;
}

int main(int argc, char **argv)
{
	int room = 1 << 18; // of a long line the socket would not take a long request at once
	int option, port = 0, connections = 1, passes = 10, poll_fd = epoll_create1(0);
	const char *input = NULL, *output = NULL;

	while ((option = getopt(argc, argv, "a:p:i:c:n:o:")) != -1) {
		switch (option) {
		case 'a': peer = ntohl(inet_addr(optarg)); break;
		case 'p': port = atoi(optarg); break;
		case 'i': input = optarg; break;
		case 'c': connections = atoi(optarg); break;
		case 'n': passes = atoi(optarg); break;
		case 'o': output = optarg; break;
		default: return 2;
		}
	}
	if (!input || connections < 1 || passes < 1)
		return 2;
	load(input);
	if (output && !(bodies = fopen(output, "wb")))
		die(output);
	struct asker *askers = calloc(connections, sizeof *askers);
	for (int i = 0; i < connections; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = &askers[i] };

		dial(&askers[i].wire, port, 0);
		setsockopt(askers[i].wire.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
		if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, askers[i].wire.fd, &event))
			die("epoll_ctl");
	}
	printf("{\"seconds\": [");
	for (int i = 0; i < passes; i++)
		printf("%s%.6f", i ? ", " : "", pass(askers, connections, poll_fd));
	printf("], \"bytes\": %lld}\n", (long long)received);
	return bodies && fclose(bodies) ? 2 : 0;
}
