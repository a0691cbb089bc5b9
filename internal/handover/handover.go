// Package handover carries messages with file descriptors between two processes of a switch,
// over a unix socket. A message is a JSON value; the descriptors travel as SCM_RIGHTS
// (unix(7)). Both ends belong to one user, but a broken one must not break the other: sizes are
// bounded, and deadlines are those of the connection.
package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Conn is a connection between two processes.
type Conn struct{ *net.UnixConn }

const (
	// maxLength and maxFiles bound a message. A million stations take 40 MB.
	maxLength = 256 << 20
	maxFiles  = 1 << 16

	// filesAtOnce are the descriptors that one byte carries; the kernel takes 253
	// (SCM_MAX_FD).
	filesAtOnce = 200
)

// Send sends a message. The descriptors stay the caller's.
func (c Conn) Send(message any, files ...int) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(files)))
	if _, err := c.Write(append(head, b...)); err != nil {
		return err
	}
	for len(files) > 0 {
		n := min(len(files), filesAtOnce)
		if _, _, err := c.WriteMsgUnix([]byte{0}, syscall.UnixRights(files[:n]...), nil); err != nil {
			return err
		}
		files = files[n:]
	}
	return nil
}

// Receive receives a message. The caller owns the descriptors. io.EOF says that the other end
// has ended the conversation.
func (c Conn) Receive(message any) (files []int, err error) {
	defer func() {
		if err != nil {
			Close(files)
			files = nil
		}
	}()
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	length, n := binary.BigEndian.Uint32(head[:]), int(binary.BigEndian.Uint32(head[4:]))
	if length > maxLength || n > maxFiles {
		return nil, fmt.Errorf("a message of %d bytes with %d files", length, n)
	}
	b, err := io.ReadAll(io.LimitReader(c, int64(length)))
	if err != nil {
		return nil, err
	}
	if len(b) < int(length) {
		return nil, io.ErrUnexpectedEOF
	}
	oob := make([]byte, syscall.CmsgSpace(4*filesAtOnce))
	for len(files) < n {
		got, oobn, flags, _, err := c.ReadMsgUnix(head[:1], oob)
		if err != nil {
			return files, err
		}
		more, err := rights(oob[:oobn])
		files = append(files, more...)
		switch {
		case err != nil:
			return files, err
		case got == 0:
			return files, io.ErrUnexpectedEOF
		case flags&syscall.MSG_CTRUNC != 0:
			return files, errors.New("not all descriptors came: the process may have too few (ulimit -n)")
		case len(more) == 0 || len(files) > n:
			return files, fmt.Errorf("%d descriptors came where %d were announced", len(files), n)
		}
	}
	return files, unmarshal(b, message)
}

func unmarshal(b []byte, message any) error {
	if err := json.Unmarshal(b, message); err != nil {
		return fmt.Errorf("a message is not understood: %w", err)
	}
	return nil
}

// rights returns the descriptors in control messages. Package net has the kernel make them
// close-on-exec.
func rights(oob []byte) (files []int, err error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return files, err
		}
		files = append(files, fds...)
	}
	return files, nil
}

// Close closes descriptors.
func Close(files []int) {
	for _, fd := range files {
		_ = syscall.Close(fd)
	}
}

// PeerUID returns the user at the other end of a connection.
func PeerUID(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	failed := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(failed, err); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// DupOf duplicates the descriptor of a file or a socket. Its Fd method would make a socket block, for
// all that have it.
func DupOf(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(from uintptr) { fd, err = Dup(int(from)) })
	return fd, errors.Join(failed, err)
}

// Dup duplicates a descriptor, close-on-exec.
func Dup(fd int) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 3)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
