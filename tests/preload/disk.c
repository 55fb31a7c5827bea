/* A disk for tests of the real binary, preloaded (LD_PRELOAD). Files below $DISK_DATA are watched.
 *
 * $DISK_CONTROL is a file whose first word says how the disk is: "ok", "full" (writes fail with ENOSPC), "eio" (writes
 * fail), "nosync" (fsync and fdatasync fail), "noread" (reads at an offset fail), "slow" (fsync and fdatasync take 2 s).
 *
 * With $DISK_SHADOW a power cut can be acted: fsync and fdatasync of a file copy what is in it to SHADOW/f-INODE, fsync of
 * a directory writes its names and inodes to SHADOW/d-INODE; both appear by rename. After a SIGKILL the shadow is what was
 * synced. sync_file_range is not durability and copies nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int watched(int fd) {
    const char *data = getenv("DISK_DATA");
    char link[64], path[4096];
    if (!data) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return strncmp(path, data, strlen(data)) == 0;
}

static int is(const char *mode) {
    const char *control = getenv("DISK_CONTROL");
    char text[32] = {0};
    if (!control) return 0;
    long fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    long n = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (n <= 0) return 0;
    text[strcspn(text, " \n")] = 0;
    return strcmp(text, mode) == 0;
}

static int fails(int fd) {
    if (!watched(fd)) return 0;
    if (is("full")) { errno = ENOSPC; return 1; }
    if (is("eio")) { errno = EIO; return 1; }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t n) {
    return fails(fd) ? -1 : REAL(write)(fd, bytes, n);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    return fails(fd) ? -1 : REAL(pwrite)(fd, bytes, n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    return fails(fd) ? -1 : REAL(pwrite64)(fd, bytes, n, at);
}

ssize_t pread64(int fd, void *bytes, size_t n, off64_t at) {
    if (watched(fd) && is("noread")) { errno = EIO; return -1; }
    return REAL(pread64)(fd, bytes, n, at);
}

static void shadow(int fd) {
    const char *dir = getenv("DISK_SHADOW");
    struct stat st;
    char at[4096], made[8192], buffer[65536];
    if (!dir || fstat(fd, &st)) return;
    int is_dir = S_ISDIR(st.st_mode);
    snprintf(at, sizeof at, "%s/%c-%lu", dir, is_dir ? 'd' : 'f', (unsigned long)st.st_ino);
    snprintf(made, sizeof made, "%s.%ld", at, (long)syscall(SYS_gettid));
    int to = open(made, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (to < 0) abort();
    if (is_dir) {
        char link[64], path[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        if (n < 0) abort();
        path[n] = 0;
        DIR *names = opendir(path);
        struct dirent *entry;
        while (names && (entry = readdir(names))) {
            if (entry->d_name[0] == '.') continue;
            int m = snprintf(buffer, sizeof buffer, "%c %lu %s\n", entry->d_type == DT_DIR ? 'd' : 'f',
                             (unsigned long)entry->d_ino, entry->d_name);
            if (REAL(write)(to, buffer, m) != m) abort();
        }
        if (names) closedir(names);
    } else {
        off64_t offset = 0;
        ssize_t n;
        while ((n = REAL(pread64)(fd, buffer, sizeof buffer, offset)) > 0) {
            if (REAL(write)(to, buffer, n) != n) abort();
            offset += n;
        }
        if (n < 0) {
            /* Opened for writing alone: read through a name of its own. */
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            int again = open(link, O_RDONLY | O_CLOEXEC);
            while (again >= 0 && (n = read(again, buffer, sizeof buffer)) > 0)
                if (REAL(write)(to, buffer, n) != n) abort();
            if (again >= 0) close(again);
        }
    }
    close(to);
    if (rename(made, at)) abort();
}

static int sync_as(int fd, int (*real)(int)) {
    if (!watched(fd)) return real(fd);
    if (is("nosync")) { errno = EIO; return -1; }
    if (is("slow")) sleep(2);
    if (getenv("DISK_SHADOW")) {
        shadow(fd);
        return 0;
    }
    return real(fd);
}

int fsync(int fd) { return sync_as(fd, REAL(fsync)); }

int fdatasync(int fd) { return sync_as(fd, REAL(fdatasync)); }
