/*
 * Makes one sync of a process fail as a disk's does: preloaded, it counts the calls of fsync and
 * fdatasync on what lies below RIG_EIO_DIR, and answers the RIG_EIO_AT-th with EIO, once.
 *
 * Each call is noted in the file RIG_EIO_NOTE, a line each: its number, the time in nanoseconds, the
 * inode, the bytes of the file when it was called (-1: a directory), what it answers, and the path.
 * With that, a test can take from the disk what no good sync has kept. With RIG_EIO_LIES the call is
 * noted so, and answered as if it had been good.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long calls;

static void note(long call, const struct stat *file, int good, const char *path) {
  char line[5000];
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int size = snprintf(line, sizeof line, "%ld %lld %llu %lld %s %s\n", call,
                      now.tv_sec * 1000000000LL + now.tv_nsec, (unsigned long long)file->st_ino,
                      S_ISDIR(file->st_mode) ? -1LL : (long long)file->st_size,
                      good ? "ok" : "EIO", path);
  int to = open(getenv("RIG_EIO_NOTE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (to < 0 || write(to, line, size) != size) abort();
  close(to);
}

static int sync_as_told(int fd, const char *name) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  const char *dir = getenv("RIG_EIO_DIR"), *which = getenv("RIG_EIO_AT");
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (dir == NULL || which == NULL || length < 0) return real(fd);
  path[length] = 0;
  struct stat file;
  if (strncmp(path, dir, strlen(dir)) != 0 || fstat(fd, &file) != 0) return real(fd);
  /* The index is a cache, made anew from the log. */
  if (strstr(path, "/index.redb") != NULL) return real(fd);

  pthread_mutex_lock(&lock);
  long call = ++calls;
  pthread_mutex_unlock(&lock);
  if (call == atol(which)) {
    /* Whatever was acknowledged before is on its way, and has the time to arrive. */
    usleep(200 * 1000);
    note(call, &file, 0, path);
    if (getenv("RIG_EIO_LIES") != NULL) return 0;
    errno = EIO;
    return -1;
  }
  int result = real(fd);
  note(call, &file, result == 0, path);
  return result;
}

int fsync(int fd) { return sync_as_told(fd, "fsync"); }
int fdatasync(int fd) { return sync_as_told(fd, "fdatasync"); }
