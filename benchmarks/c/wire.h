// What the load clients share: time, one connection to a server (TLS if the build has it), an answer's head.
#ifndef WIRE_H
#define WIRE_H
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
#endif

enum { HEAD_ROOM = 8192 };

struct wire {
	int fd;
	int have; // bytes of the answer's head, and of what came with it
	char head[HEAD_ROOM + 1];
#ifdef TLS
	SSL *tls;
#endif
};

static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(2);
}

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

#ifdef TLS
static inline void shake_hands(struct wire *w)
{
	static SSL_CTX *context;

	if (!context)
		context = SSL_CTX_new(TLS_client_method()); // any certificate will do: it is the benchmark's own
	w->tls = SSL_new(context);
	SSL_set_fd(w->tls, w->fd);
	if (SSL_connect(w->tls) != 1) {
		fprintf(stderr, "the TLS handshake failed\n");
		exit(2);
	}
}
#endif

// Where dial() goes, in the host's byte order.
static uint32_t peer = INADDR_LOOPBACK;

static inline void dial(struct wire *w, int port, int tls)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(peer) } };
	int one = 1;

	w->have = 0;
	w->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (w->fd < 0 || connect(w->fd, (void *)&to, sizeof to))
		die("connect");
	setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#ifdef TLS
	w->tls = NULL;
	if (tls)
		shake_hands(w);
#else
	if (tls) {
		fprintf(stderr, "built without TLS: install libssl-dev and build again\n");
		exit(2);
	}
#endif
	fcntl(w->fd, F_SETFL, O_NONBLOCK);
}

// As recv(2) on a socket that does not block. Without a buffer the bytes are discarded: in the kernel, or after decryption.
static inline ssize_t take(struct wire *w, char *buffer, size_t length)
{
#ifdef TLS
	static char ignored[1 << 18];

	if (w->tls) {
		int got = buffer ? SSL_read(w->tls, buffer, length) :
				   SSL_read(w->tls, ignored, length < sizeof ignored ? length : sizeof ignored);

		if (got <= 0 && SSL_get_error(w->tls, got) == SSL_ERROR_WANT_READ) {
			errno = EAGAIN;
			return -1;
		}
		return got > 0 ? got : 0;
	}
#endif
	return recv(w->fd, buffer, length, buffer ? 0 : MSG_TRUNC);
}

// Requests are small and go out when nothing else is under way: a short write would be the machine's fault.
static inline int put(struct wire *w, const char *request, size_t length)
{
#ifdef TLS
	if (w->tls)
		return SSL_write(w->tls, request, length) == (int)length;
#endif
	return send(w->fd, request, length, MSG_NOSIGNAL) == (ssize_t)length;
}

// Reads until the head is whole: 1, with what follows it at *rest; 0 if more must come first; -1 if none will.
static inline int take_head(struct wire *w, char **rest)
{
	ssize_t got = take(w, w->head + w->have, HEAD_ROOM - w->have);

	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got <= 0)
		return -1;
	w->have += got;
	w->head[w->have] = 0;
	*rest = memmem(w->head, w->have, "\r\n\r\n", 4);
	if (!*rest)
		return w->have < HEAD_ROOM ? 0 : -1;
	*rest += 4;
	return 1;
}

static inline int status_of(const struct wire *w)
{
	return atoi(w->head + sizeof "HTTP/1.1");
}

// The value of a field, NULL where the head has none; `name` is "\r\nName:".
static inline const char *field(const struct wire *w, const char *name)
{
	const char *at = strcasestr(w->head, name);

	return at ? at + strlen(name) : NULL;
}
#endif
