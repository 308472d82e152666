/*
 * Makes one sync of a process fail as a disk's does: preloaded, it counts the calls of fsync and
 * fdatasync on what lies below RIG_EIO_DIR, and answers the RIG_EIO_AT-th with EIO, once.
 *
 * Each call is noted in the file RIG_EIO_NOTE, a line each: its number, the time in nanoseconds, the
 * inode, the bytes that an earlier good sync of that file has made durable (-1: a directory), what it
 * answers, and the path. With that, a test can take from the disk what never reached it.
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

#define FILES 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long calls;
static int known;
static struct { ino_t inode; long durable; } files[FILES];

static int place_of(ino_t inode) {
  for (int at = 0; at < known; at++)
    if (files[at].inode == inode) return at;
  if (known == FILES) abort();
  files[known].inode = inode;
  files[known].durable = 0;
  return known++;
}

static void note(long call, const struct stat *file, long durable, int good, const char *path) {
  char line[5000];
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int size = snprintf(line, sizeof line, "%ld %lld %llu %ld %s %s\n", call,
                      now.tv_sec * 1000000000LL + now.tv_nsec, (unsigned long long)file->st_ino,
                      durable, good ? "ok" : "EIO", path);
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

  pthread_mutex_lock(&lock);
  long call = ++calls;
  int at = place_of(file.st_ino);
  /* A file that is shorter than what was durable is another one with the same inode. */
  if (files[at].durable > file.st_size) files[at].durable = 0;
  long durable = S_ISDIR(file.st_mode) ? -1 : files[at].durable;
  pthread_mutex_unlock(&lock);
  if (call == atol(which)) {
    /* Whatever was acknowledged before is on its way, and has the time to arrive. */
    usleep(200 * 1000);
    note(call, &file, durable, 0, path);
    errno = EIO;
    return -1;
  }
  int result = real(fd);
  if (result == 0) {
    pthread_mutex_lock(&lock);
    files[at].durable = file.st_size;
    pthread_mutex_unlock(&lock);
  }
  note(call, &file, durable, result == 0, path);
  return result;
}

int fsync(int fd) { return sync_as_told(fd, "fsync"); }
int fdatasync(int fd) { return sync_as_told(fd, "fdatasync"); }
