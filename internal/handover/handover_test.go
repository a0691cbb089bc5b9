package handover

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// pair returns two connected ends.
func pair(t testing.TB) (a, b Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = Conn{c.(*net.UnixConn)}
		t.Cleanup(func() { ends[i].Close() })
		_ = ends[i].SetDeadline(time.Now().Add(time.Minute))
	}
	return ends[0], ends[1]
}

// Messages come as they were sent, with their descriptors in order, however many.
func TestMessages(t *testing.T) {
	a, b := pair(t)
	dir := t.TempDir()
	const many = 2*filesAtOnce + 7
	var files []*os.File
	for i := range many {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	sent := make(chan error)
	go func() {
		for _, n := range []int{0, 1, many} {
			var fds []int
			for _, f := range files[:n] {
				fds = append(fds, int(f.Fd()))
			}
			sent <- a.Send(map[string]int{"n": n}, fds...)
		}
		a.Close()
	}()
	for _, n := range []int{0, 1, many} {
		var m map[string]int
		got, err := b.Receive(&m)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if m["n"] != n || len(got) != n {
			t.Fatalf("a message %v with %d files, not %d", m, len(got), n)
		}
		for i, fd := range got {
			f := os.NewFile(uintptr(fd), "")
			is, err1 := f.Stat()
			was, err2 := files[i].Stat()
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if !os.SameFile(is, was) {
				t.Errorf("file %d of %d is another one", i, n)
			}
			f.Close()
		}
	}
	if _, err := b.Receive(new(any)); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if uid, err := PeerUID(b.UnixConn); err != nil || uid != os.Getuid() {
		t.Errorf("the peer is user %d, %v", uid, err)
	}
}

// What is no message is an error, soon, and takes neither memory nor descriptors.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x00{}"))
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01{}\x00"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, to := pair(t)
		go func() { _, _ = from.Write(b); from.Close() }()
		for {
			var m any
			files, err := to.Receive(&m)
			Close(files)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it waits for more than comes")
			}
			if err != nil {
				return
			}
		}
	})
}
