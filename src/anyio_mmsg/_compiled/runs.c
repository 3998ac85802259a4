/* Packets that are sent by runs, with segmentation offload (UDP_SEGMENT): a run is one message,
 * which the kernel or the device cuts into packets. The twin of `runs` in _send/sendto.py.
 */

#include "compiled.h"

#ifdef __linux__

#include "sendmmsg.h"

#define SOL_UDP_LEVEL 17 /* linux/udp.h, which some C libraries lack, like the next one */
#define UDP_SEGMENT_TYPE 103

/* Segments of a run. Every kernel with segmentation (4.18) takes 64; later ones take 128. */
#define MOST_SEGMENTS 64

/* Bytes of a run, which is one datagram until it is cut: as many as IPv4 carries (65,535 less 20
 * for its header and 8 for the UDP header). */
#define MOST_BYTES 65507

int
runs_make(Sendmmsg *self)
{
    size_t most = (size_t)Py_MIN(self->count, MOST_MESSAGES);
    size_t control_size = SEGMENT_SPACE + (self->controls == NULL ? 0 : MOST_CONTROL);
    Runs *runs = self->room.runs;
    if (runs != NULL && (size_t)runs->room >= most && runs->control_size == control_size) {
        return 0; /* made before, perhaps for another send */
    }
    PyMem_Free(runs);
    runs = PyMem_Malloc(sizeof(*runs)
                        + most
                              * (sizeof(*runs->headers) + sizeof(*runs->wholes) + control_size
                                 + sizeof(*runs->lengths)));
    self->room.runs = runs;
    if (runs == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    runs->room = (Py_ssize_t)most;
    runs->headers = (struct mmsghdr *)(runs + 1);
    runs->wholes = (struct iovec *)(runs->headers + most);
    runs->controls = (char *)(runs->wholes + most);
    runs->control_size = control_size;
    runs->lengths = (int *)(runs->controls + most * control_size);
    return 0;
}

/* Have a run cut into segments of a size: a message behind the control data that its header points
 * to, if any. `room`, aligned as a cmsghdr and of the caller's, takes both. */
static void
ask_for_segments(struct msghdr *header, char *room, uint16_t size)
{
    size_t before = header->msg_controllen; /* at most MOST_CONTROL, in whole words */
    struct cmsghdr *message = (struct cmsghdr *)(room + before);
    if (before > 0) {
        memcpy(room, header->msg_control, before);
    }
    message->cmsg_level = SOL_UDP_LEVEL;
    message->cmsg_type = UDP_SEGMENT_TYPE;
    message->cmsg_len = CMSG_LEN(sizeof(size));
    memcpy(CMSG_DATA(message), &size, sizeof(size));
    header->msg_control = room;
    header->msg_controllen = before + SEGMENT_SPACE;
}

static int
same_name(const Sendmmsg *self, Py_ssize_t one, Py_ssize_t other)
{
    const struct msghdr *a = &self->headers[one].msg_hdr, *b = &self->headers[other].msg_hdr;
    return a->msg_namelen == b->msg_namelen
           && (a->msg_name == b->msg_name || a->msg_namelen == 0
               || memcmp(a->msg_name, b->msg_name, a->msg_namelen) == 0);
}

/* How many packets from `first` on can be one message: of one size, except that the last may be
 * shorter, to one destination, and with the same control data. An empty packet is a run of its
 * own, as the kernel would cut no segment for it. Reports also the bytes, and whether they lie in
 * one piece. */
static int
run_length(const Sendmmsg *self, Py_ssize_t first, Py_ssize_t stop, size_t *bytes, int *whole)
{
    const struct iovec *iovecs = self->iovecs + first;
    size_t size = iovecs[0].iov_len;
    Py_ssize_t run = 1, most = Py_MIN(MOST_SEGMENTS, stop - first);
    *bytes = size;
    *whole = 1;
    while (size > 0 && run < most && iovecs[run - 1].iov_len == size) {
        size_t next = iovecs[run].iov_len;
        if (next == 0 || next > size || *bytes + next > MOST_BYTES
            || !same_name(self, first, first + run)
            || (self->controls != NULL && !same_control(self, first, first + run))) {
            break;
        }
        *whole = *whole && (char *)iovecs[run - 1].iov_base + size == iovecs[run].iov_base;
        *bytes += next;
        run++;
    }
    return (int)run;
}

int
runs_lay(Sendmmsg *self)
{
    Runs *runs = self->room.runs;
    Py_ssize_t at = self->handled, stop = at + Py_MIN(self->count - at, MOST_MESSAGES);
    int count = 0;
    while (at < stop) {
        struct msghdr *header = &runs->headers[count].msg_hdr;
        struct iovec *whole = &runs->wholes[count];
        uint16_t size = (uint16_t)self->iovecs[at].iov_len;
        size_t bytes;
        int is_whole, length = run_length(self, at, stop, &bytes, &is_whole);
        runs->headers[count] = self->headers[at];
        if (length > 1) {
            ask_for_segments(header, runs->controls + (size_t)count * runs->control_size, size);
            header->msg_iovlen = (size_t)length;
            if (is_whole) { /* one iovec costs the kernel less than many */
                whole->iov_base = self->iovecs[at].iov_base;
                whole->iov_len = bytes;
                header->msg_iov = whole;
                header->msg_iovlen = 1;
            }
        }
        runs->lengths[count++] = length;
        at += length;
    }
    return count;
}

#endif
