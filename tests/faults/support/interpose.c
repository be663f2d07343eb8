/* What the scenarios change under a running host: the time of day, and whether a name resolves. Preloaded into it; both are told by
 * a file that is mapped, since nginx clears the environment that a library of Debian's would read again, and without asking anybody.
 *
 *     TOKENWARD_FAULTS    a file of 16 bytes: seconds to add to the time of day (int64), what becomes of names (int32)
 *
 * Clocks that count go on as they do. */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>


#define NAME  "as.tokenward.test"

enum { RESOLVES, IS_NOT_KNOWN, HANGS };

typedef struct {
    int64_t  seconds;
    int32_t  names;
    int32_t  unused;
} faults_t;

static const volatile faults_t  *faults;


__attribute__((constructor)) static void
map_faults(void)
{
    int          fd;
    void        *map;
    const char  *path;

    path = getenv("TOKENWARD_FAULTS");
    fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }

    map = mmap(NULL, sizeof(faults_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);

    if (map != MAP_FAILED) {
        faults = map;
    }
}


int
clock_gettime(clockid_t id, struct timespec *at)
{
    int  rc;

    rc = (int) syscall(SYS_clock_gettime, id, at);

    if (rc == 0 && faults && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        at->tv_sec += faults->seconds;
    }

    return rc;
}


int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec  at;

    (void) tz;
    clock_gettime(CLOCK_REALTIME, &at);

    tv->tv_sec = at.tv_sec;
    tv->tv_usec = at.tv_nsec / 1000;
    return 0;
}


time_t
time(time_t *out)
{
    struct timespec  at;

    clock_gettime(CLOCK_REALTIME, &at);

    if (out) {
        *out = at.tv_sec;
    }

    return at.tv_sec;
}


int
getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
    struct addrinfo **restrict found)
{
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    *(void **) &next = dlsym(RTLD_NEXT, "getaddrinfo");

    if (faults == NULL || node == NULL || strcmp(node, NAME) != 0) {
        return next(node, service, hints, found);
    }

    while (faults->names == HANGS) {
        usleep(20000);
    }

    return faults->names == RESOLVES ? next("127.0.0.1", service, hints, found) : EAI_NONAME;
}
