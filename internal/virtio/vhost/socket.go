package vhost

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Serve converses with the front end on conn until the conversation ends or fails, or
// conn is closed, and returns why; io.EOF when the front end ended it. After ErrPaused it may be
// called again, for the same front end.
func (b *Backend) Serve(conn *net.UnixConn) error {
	c := b.conversation()
	var in, out []byte
	oob := make([]byte, unix.CmsgSpace(maxTable*4))
	for {
		if b.pause.Load() {
			return ErrPaused
		}
		h, payload, fds, err := receive(conn, in[:0], oob)
		if err == nil {
			out, err = b.hear(c, out[:0], h, payload, &fds)
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

// hear has a conversation handle a message, and notes what it sets up.
func (b *Backend) hear(c *Conversation, out []byte, h Header, payload []byte, fds *FDs) ([]byte, error) {
	kept, err := b.setup.keep(h.Request, fds.List)
	if err != nil {
		return out, err
	}
	out, err = c.Handle(out, h, payload, fds)
	if err != nil {
		closeAll(kept)
		return out, err
	}
	b.setup.note(h.Request, payload, kept)
	return out, nil
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
	for err = ErrPaused; errors.Is(err, ErrPaused); {
		if err = readFull(conn, buf, oob, &fds); errors.Is(err, ErrPaused) {
			readOn(conn) // the payload comes
		}
	}
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
		case paused(err) && at > 0:
			readOn(conn) // the rest of the message comes
			continue
		case paused(err):
			return ErrPaused
		case errors.Is(err, io.EOF) && at == 0:
			return io.EOF
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0 || len(fds.List) > maxTable:
			return fmt.Errorf("a message with more than %d file descriptors", maxTable)
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
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil { // else credentials, or whatever else a front end adds
			f.List = append(f.List, fds...)
		}
	}
	return nil
}
