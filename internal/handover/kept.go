package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
)

// What a process needs after the former one has died waits in a file: a socket to which the former
// one has written a message with descriptors. Whoever keeps the file, such as a service manager,
// keeps them all, as one.

// maxKept bounds such a message: the kernel's default for a socket (net.core.wmem_default) has
// room for one.
const maxKept = 128 << 10

// Pack puts a message with descriptors, which stay the caller's, into a file.
func Pack(message any, files ...int) (fd int, err error) {
	b, err := json.Marshal(message)
	if err != nil {
		return -1, err
	}
	if len(b) > maxKept || len(files) > filesAtOnce {
		return -1, fmt.Errorf("%d bytes with %d files are too much to keep", len(b), len(files))
	}
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer syscall.Close(ends[0])
	var rights []byte
	if len(files) > 0 {
		rights = syscall.UnixRights(files...)
	}
	if err := syscall.Sendmsg(ends[0], b, rights, nil, syscall.MSG_NOSIGNAL); err != nil {
		syscall.Close(ends[1])
		return -1, err
	}
	return ends[1], nil
}

// Unpack returns what Pack has put into a file, once. The descriptors are the caller's.
func Unpack(fd int, message any) (files []int, err error) {
	b, oob := make([]byte, maxKept+1), make([]byte, syscall.CmsgSpace(4*filesAtOnce))
	n, oobn, flags, _, err := syscall.Recvmsg(fd, b, oob, syscall.MSG_DONTWAIT|syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	files, err = rights(oob[:oobn])
	switch {
	case err != nil:
	case flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 || n > maxKept:
		err = errors.New("it is more than is kept")
	default:
		err = unmarshal(b[:n], message)
	}
	if err != nil {
		Close(files)
		return nil, err
	}
	return files, nil
}
