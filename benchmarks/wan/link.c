/* link NAMESPACE-A NAMESPACE-B MICROSECONDS MBIT QUEUE: a long line between two network namespaces.
 *
 * Makes a TAP device called "wan" in each, and carries frames between them until it is killed or its parent ends. A frame
 * leaves when the line is free, keeps it busy for its bits (and 24 bytes of preamble, checksum and gap) at MBIT Mbit/s, and arrives
 * MICROSECONDS later. A frame that would have to wait behind more than QUEUE bytes is dropped, as by a router. Prints one
 * line when both devices are there. In place of netem, which not every kernel has. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 1536, SLOTS = 1 << 14, BURST = 64, OVERHEAD = 24 };

typedef long long ns;

struct slot {
    ns arrives;
    size_t size;
    unsigned char frame[LARGEST];
};

struct direction {
    int in, out;
    struct slot *ring;
    unsigned first, count;
    ns line_free;
};

static ns clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int device_in(const char *namespace)
{
    char path[128];
    struct ifreq request = {.ifr_name = "wan", .ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    int ns_fd = open(path, O_RDONLY), fd;
    if (ns_fd < 0 || setns(ns_fd, CLONE_NEWNET) != 0)
        fail(path);
    close(ns_fd);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        fail("/dev/net/tun");
    return fd;
}

/* When the next frame is due; those that are due have arrived. */
static ns deliver(struct direction *d, ns now)
{
    while (d->count > 0) {
        struct slot *s = &d->ring[d->first];
        if (s->arrives > now)
            return s->arrives;
        if (write(d->out, s->frame, s->size) < 0) { /* its other end is down: the frame is lost, as on a line */ }
        d->first = (d->first + 1) % SLOTS;
        d->count--;
    }
    return now + 100000000;
}

static void take(struct direction *d, ns delay, double ns_per_byte, ns queue)
{
    unsigned char surplus[LARGEST];
    for (int i = 0; i < BURST; i++) {
        struct slot *s = &d->ring[(d->first + d->count) % SLOTS];
        int full = d->count == SLOTS;
        ssize_t size = read(d->in, full ? surplus : s->frame, LARGEST);
        if (size <= 0)
            return;
        ns now = clock_ns();
        if (d->line_free < now)
            d->line_free = now;
        if (full || d->line_free - now > queue)
            continue;
        d->line_free += (ns)((size + OVERHEAD) * ns_per_byte);
        s->size = size;
        s->arrives = d->line_free + delay;
        d->count++;
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fputs("usage: link NAMESPACE-A NAMESPACE-B MICROSECONDS MBIT QUEUE\n", stderr);
        return 2;
    }
    ns delay = atoll(argv[3]) * 1000;
    double ns_per_byte = 8000.0 / atof(argv[4]);
    ns queue = (ns)(atoll(argv[5]) * ns_per_byte);
    struct sched_param urgent = {.sched_priority = 10};
    struct direction d[2] = {{0}};

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1000);
    sched_setscheduler(0, SCHED_RR, &urgent); /* where it may: delays stay true beside busy programs */
    d[0].in = d[1].out = device_in(argv[1]);
    d[1].in = d[0].out = device_in(argv[2]);
    for (int i = 0; i < 2; i++)
        if (!(d[i].ring = calloc(SLOTS, sizeof *d[i].ring)))
            fail("calloc");
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd waiting[2] = {{d[0].in, POLLIN, 0}, {d[1].in, POLLIN, 0}};
        ns now = clock_ns(), first = deliver(&d[0], now), second = deliver(&d[1], now);
        ns pause = (first < second ? first : second) - clock_ns();
        struct timespec t = {pause > 0 ? pause / 1000000000 : 0, pause > 0 ? pause % 1000000000 : 0};
        if (ppoll(waiting, 2, &t, NULL) > 0)
            for (int i = 0; i < 2; i++)
                if (waiting[i].revents)
                    take(&d[i], delay, ns_per_byte, queue);
    }
}
