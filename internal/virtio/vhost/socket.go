package vhost

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Serve converses with the front end on conn until the conversation ends or fails, or
// conn is closed, and returns why; io.EOF when the front end ended it.
func (b *Backend) Serve(conn *net.UnixConn) error {
	c := NewConversation(b)
	var in, out []byte
	oob := make([]byte, unix.CmsgSpace(maxTable*4))
	for {
		h, payload, fds, err := receive(conn, in[:0], oob)
		if err == nil {
			out, err = c.Handle(out[:0], h, payload, &fds)
			in = payload
		}
		for fd := fds.Take(); fd >= 0; fd = fds.Take() {
			unix.Close(fd)
		}
		if err != nil {
			return err
		}
		if len(out) > 0 {
			if err := reply(conn, out, fds.Reply); err != nil {
				return err
			}
		}
	}
}

// reply sends a message with descriptors, which it owns.
func reply(conn *net.UnixConn, b []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := conn.WriteMsgUnix(b, oob, nil)
	for _, fd := range fds {
		unix.Close(fd)
	}
	return err
}

// receive reads one message, whose payload it stores in buf. It returns the descriptors
// that came with it even when it fails.
func receive(conn *net.UnixConn, buf, oob []byte) (h Header, _ []byte, fds FDs, err error) {
	var head [HeaderSize]byte
	if err := readFull(conn, head[:], oob, &fds); err != nil {
		return h, buf, fds, err
	}
	if h, err = ParseHeader(head[:]); err != nil {
		return h, buf, fds, err
	}
	buf = append(buf, make([]byte, h.Size)...)
	err = readFull(conn, buf, oob, &fds)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return h, buf, fds, err
}

// readFull fills b and appends the descriptors that arrive with it to fds.
func readFull(conn *net.UnixConn, b, oob []byte, fds *FDs) error {
	for at := 0; at < len(b); {
		n, oobn, flags, _, err := conn.ReadMsgUnix(b[at:], oob)
		if oobn > 0 {
			if err := fds.parse(oob[:oobn]); err != nil {
				return err
			}
		}
		switch {
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0 || len(fds.List) > maxTable:
			return fmt.Errorf("a message with more than %d file descriptors", maxTable)
		case n == 0 && at == 0:
			return io.EOF
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		at += n
	}
	return nil
}

// parse appends the descriptors of control messages.
func (f *FDs) parse(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, or whatever else a front end adds
		}
		f.List = append(f.List, fds...)
	}
	return nil
}
