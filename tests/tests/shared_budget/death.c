/*
 * Kills a process by SIGKILL at one point: preloaded, it looks after each fsync and fdatasync of what
 * lies in a folder `journal` at the last lines of the file. Where one of them is of a stream that
 * begins as RIG_DEATH_STREAM says and holds the text RIG_DEATH_FACT, it is durable now, and nobody
 * has been told: the process dies before the call returns.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* More than the records of a short session come to. */
#define LAST (256 * 1024)

static int is_there(const char *path) {
  const char *stream = getenv("RIG_DEATH_STREAM"), *fact = getenv("RIG_DEATH_FACT");
  if (stream == NULL || fact == NULL) return 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  char *text = malloc(LAST + 1);
  if (fd < 0 || text == NULL) abort();
  off_t size = lseek(fd, 0, SEEK_END);
  ssize_t length = pread(fd, text, LAST, size > LAST ? size - LAST : 0);
  close(fd);
  if (length < 0) abort();
  text[length] = 0;
  char begin[256];
  snprintf(begin, sizeof begin, "\"stream\":\"%s", stream);
  int found = 0;
  for (char *line = text, *next; line != NULL && !found; line = next) {
    next = strchr(line, '\n');
    if (next != NULL) *next++ = 0;
    found = strstr(line, begin) != NULL && strstr(line, fact) != NULL;
  }
  free(text);
  return found;
}

static int sync_and_die(int fd, const char *name) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  char link[64], path[4096];
  int result = real(fd);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (result != 0 || length < 0) return result;
  path[length] = 0;
  const char *file = strstr(path, "/journal/");
  if (file != NULL && is_there(path)) kill(getpid(), SIGKILL);
  return result;
}

int fsync(int fd) { return sync_and_die(fd, "fsync"); }
int fdatasync(int fd) { return sync_and_die(fd, "fdatasync"); }
