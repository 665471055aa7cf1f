// responder: how little a range can cost. A one-thread epoll server that answers any request with `Range: bytes=A-B` by one
// writev from the mapped file, and checks nothing: the distance to it is what HTTP and safety cost.
//
//   responder PORT FILE        until a signal ends it
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const char HEAD[] = "HTTP/1.1 206 Partial Content\r\nContent-Type: application/octet-stream\r\nContent-Length: %lld\r\n"
			   "Content-Range: bytes %lld-%lld/%lld\r\nETag: \"0-0\"\r\nAccept-Ranges: bytes\r\n\r\n";

struct client {
	int fd, writing, head_left;
	char head[256];
	const char *head_at, *body;
	int64_t left;
};

static const char *content;
static int64_t size;
static int poll_fd;

static void die(const char *what)
{
	fprintf(stderr, "responder: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void watch(int operation, int fd, uint32_t events, void *who)
{
	struct epoll_event event = { .events = events, .data.ptr = who };

	if (epoll_ctl(poll_fd, operation, fd, &event))
		die("epoll_ctl");
}

static void forget(struct client *c)
{
	close(c->fd);
	free(c);
}

// Sends until all is out or the socket is full: 1, 0; -1 without a client.
static int push(struct client *c)
{
	while (c->head_left || c->left) {
		struct iovec parts[] = { { (void *)c->head_at, c->head_left }, { (void *)c->body, c->left } };
		ssize_t sent = writev(c->fd, parts, 2);

		if (sent < 0)
			return errno == EAGAIN ? 0 : -1;
		int of_head = sent < c->head_left ? sent : c->head_left;

		c->head_at += of_head;
		c->head_left -= of_head;
		c->body += sent - of_head;
		c->left -= sent - of_head;
	}
	return 1;
}

static int answer(struct client *c)
{
	char request[4096], *range;
	ssize_t got = recv(c->fd, request, sizeof request - 1, 0);
	long long first = 0, last = size - 1;

	if (got <= 0)
		return got < 0 && errno == EAGAIN ? 1 : -1;
	request[got] = 0;
	range = strstr(request, "bytes=");
	if (range) {
		first = strtoll(range + 6, &range, 10);
		last = strtoll(range + 1, NULL, 10);
	}
	if (first < 0 || last < first || last >= size)
		return -1;
	c->head_left = snprintf(c->head, sizeof c->head, HEAD, last - first + 1, first, last, (long long)size);
	c->head_at = c->head;
	c->body = content + first;
	c->left = last - first + 1;
	return push(c);
}

static void serve(struct client *c, uint32_t events)
{
	int state = events & EPOLLOUT ? push(c) : answer(c);

	if (state < 0) {
		forget(c);
	} else if (c->writing == state) {
		c->writing = !state;
		watch(EPOLL_CTL_MOD, c->fd, state ? EPOLLIN : EPOLLOUT, c);
	}
}

static void greet(int listener)
{
	int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	struct client *c = fd < 0 ? NULL : calloc(1, sizeof *c);

	if (!c)
		return;
	c->fd = fd;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	watch(EPOLL_CTL_ADD, fd, EPOLLIN, c);
}

static void map(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	size = st.st_size;
	content = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (content == MAP_FAILED)
		die(path);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct epoll_event events[256];
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (argc != 3)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	map(argv[2]);
	at.sin_port = htons(atoi(argv[1]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (void *)&at, sizeof at) || listen(listener, 512))
		die("listen");
	poll_fd = epoll_create1(0);
	watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
	for (;;) {
		int count = epoll_wait(poll_fd, events, 256, -1);

		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr)
				serve(events[i].data.ptr, events[i].events);
			else
				greet(listener);
		}
	}
}
