package sockfile

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// nobody is a user that owns nothing.
const nobody = 65534

func stat(t *testing.T, path string) (owner, group uint32, mode fs.FileMode) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid, fs.FileMode(st.Mode & 0o7777)
}

func TestParseAccess(t *testing.T) {
	for _, c := range []struct {
		owner, group, mode string
		want               Access
	}{
		{"", "", "", Access{Anyone, Anyone, 0o660}},
		{"root", "", "", Access{0, Anyone, 0o660}},
		{"", "0", "0600", Access{Anyone, 0, 0o600}},
		{"7", "8", "666", Access{7, 8, 0o666}},
	} {
		if a, err := ParseAccess(c.owner, c.group, c.mode); err != nil || a != c.want {
			t.Errorf("%+v: %+v, %v", c, a, err)
		}
	}
	for _, c := range [][3]string{
		{"no-such-user", "", ""}, {"", "no-such-group", ""}, {"", "", "rw"},
		{"", "", "0"}, {"", "", "000"}, {"", "", "66"}, {"", "", "01660"}, {"", "", "1660"}, {"", "", "0888"}, {"", "", "0o66"}, {"", "", "-660"}, {"", "", "00660"},
	} {
		if a, err := ParseAccess(c[0], c[1], c[2]); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is %+v, %v", c, a, err)
		}
	}
	if CheckMode("") != nil || CheckMode("0660") != nil || CheckMode("0o66") == nil {
		t.Error("CheckMode is not of ParseMode's mind")
	}
}

// A socket is for whom it is made, from the first moment on, and for others when that changes.
func TestAccess(t *testing.T) {
	testenv.Root(t)
	path := filepath.Join(t.TempDir(), "s")
	s, err := Serve(path, Access{nobody, 7, 0o600})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := func(owner, group uint32, mode fs.FileMode) {
		t.Helper()
		if o, g, m := stat(t, path); o != owner || g != group || m != mode {
			t.Errorf("the socket is of %d:%d, %v, want %d:%d, %v", o, g, m, owner, group, mode)
		}
	}
	want(nobody, 7, 0o600)
	for _, c := range []struct {
		a            Access
		owner, group uint32
		mode         fs.FileMode
	}{
		{Access{Anyone, 8, 0o666}, 0, 8, 0o666},
		{Access{5, Anyone, 0}, 5, 0, 0o660},
		{Default, 0, 0, 0o660},
	} {
		if err := s.SetAccess(c.a); err != nil {
			t.Fatal(err)
		}
		want(c.owner, c.group, c.mode)
	}
	c, err := ListenPacket(filepath.Join(t.TempDir(), "d"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.SetAccess(Default); err != nil {
		t.Errorf("access to a Server that is closed: %v", err)
	}
}

// The next process takes a socket whatever its owner, and can give it back to the switch's own: in a
// directory that hands its group down, to that group.
func TestTake(t *testing.T) {
	testenv.Root(t)
	for _, group := range []uint32{0, 9} {
		dir := t.TempDir()
		if group != 0 {
			if err := errors.Join(os.Chown(dir, 0, int(group)), os.Chmod(dir, 0o755|fs.ModeSetgid)); err != nil {
				t.Fatal(err)
			}
		}
		path, given := filepath.Join(dir, "s"), Access{nobody, 7, 0o600}
		former, err := Serve(path, given)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := former.Give()
		if err != nil {
			t.Fatal(err)
		}
		next, err := Take(path, given, fd)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		if o, g, m := stat(t, path); o != nobody || g != 7 || m != 0o600 {
			t.Errorf("after it was taken, the socket is of %d:%d, %v", o, g, m)
		}
		if err := next.SetAccess(Default); err != nil {
			t.Fatal(err)
		}
		if o, g, m := stat(t, path); o != 0 || g != group || m != 0o660 {
			t.Errorf("given back, the socket is of %d:%d, %v, want 0:%d", o, g, m, group)
		}
	}
}

// Others reach their sockets in a directory that was made for the switch's user alone.
func TestLetIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a    Access
		want fs.FileMode
	}{
		{Default, 0o770}, {Access{Anyone, 7, defaultMode}, 0o771}, {Access{Anyone, Anyone, 0o666}, 0o771}, {Default, 0o771},
	} {
		if err := LetIn(dir, c.a); err != nil {
			t.Fatal(err)
		}
		if _, _, mode := stat(t, dir); mode != c.want {
			t.Errorf("for %+v the directory has mode %v, not %v", c.a, mode, c.want)
		}
	}
	if LetIn(dir+"/none", Access{}) == nil {
		t.Error("a directory that is not there is no error")
	}
}

// In a directory that is made anew with a socket, others reach it as before.
func TestReplace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	path := filepath.Join(dir, "s")
	for _, a := range []Access{Default, {Anyone, Anyone, 0o666}} {
		if err := MakeDir(dir); err != nil {
			t.Fatal(err)
		}
		if err := LetIn(dir, a); err != nil {
			t.Fatal(err)
		}
		_, _, want := stat(t, dir)
		var former *File
		for range 3 {
			l, f, err := ListenAs(path, a)
			if err != nil {
				t.Fatal(err)
			}
			if former != nil {
				if err := f.Replace(former); err != nil {
					t.Error(err)
				}
				former.Close()
			}
			if _, _, mode := stat(t, dir); mode != want {
				t.Errorf("the new directory has mode %v, not %v", mode, want)
			}
			if !f.There() {
				t.Error("the socket is not there")
			}
			former = f
			if err := errors.Join(l.Close(), os.RemoveAll(dir)); err != nil {
				t.Fatal(err)
			}
		}
		former.Close()
	}

	// A directory that somebody else made stays as it is.
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o750)); err != nil {
		t.Fatal(err)
	}
	l, f, err := ListenAs(path, Default)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer f.Close()
	if err := f.Replace(&File{through: passMode}); err != nil {
		t.Error(err)
	}
	if _, _, mode := stat(t, dir); mode != 0o750 {
		t.Errorf("a directory of others has mode %v", mode)
	}
}

// Who may not give a socket away is told so, and keeps it as it was.
func TestAccessOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if os.Geteuid() == 0 {
		if _, _, err := ListenAs(path, Access{Anyone, 1 << 31, 0o660}); err != nil {
			t.Skip("root may give it to anybody: ", err)
		}
		t.Skip("root may give it to anybody")
	}
	if _, _, err := ListenAs(path, Access{Owner: 0, Group: Anyone}); err == nil || !strings.Contains(err.Error(), "may not give") || exists(t, path) {
		t.Errorf("%v; the socket is there: %v", err, exists(t, path))
	}
}

// Whatever the path leads to once the socket is bound, what is done to it is done to it: not
// to a file of ours that whoever owns the directory has linked to.
func TestReplacedWhileMade(t *testing.T) {
	dir := t.TempDir()
	path, target := filepath.Join(dir, "s"), filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, f, err := place(path, Access{Anyone, Anyone, 0o666}, func(c *net.ListenConfig) (socket, error) {
		l, err := c.Listen(context.Background(), "unix", path)
		if err != nil {
			return nil, err
		}
		if _, _, mode := stat(t, path); mode&^0o600 != 0 {
			t.Errorf("the socket begins with mode %v", mode)
		}
		if err := errors.Join(os.Rename(path, path+"2"), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
		return l.(*net.UnixListener), nil
	})
	if err == nil {
		defer s.Close()
		defer f.Close()
		if f.There() {
			t.Error("it is said to be at its path")
		}
	}
	if _, _, mode := stat(t, target); mode != 0o600 {
		t.Errorf("the mode of another file is %v", mode)
	}
	if os.Geteuid() != 0 {
		return // the kernel does not say which file it is; see fileOf
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, _, mode := stat(t, path+"2"); mode != 0o666 {
		t.Errorf("the socket's mode is %v", mode)
	}
	if err := f.SetAccess(Access{nobody, nobody, 0o606}); err != nil {
		t.Fatal(err)
	}
	if owner, _, mode := stat(t, path+"2"); owner != nobody || mode != 0o606 {
		t.Errorf("the socket is of %d, %v", owner, mode)
	}
	if owner, _, mode := stat(t, target); owner != 0 || mode != 0o600 {
		t.Errorf("another file is of %d, %v", owner, mode)
	}
}

// Links of other users lead nowhere, those of root and of the process's user as always.
func TestFind(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	for _, d := range []string{"real/deep", "theirs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string, owner int) {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.Symlink(to, name), os.Lchown(name, owner, owner)); err != nil {
			t.Fatal(err)
		}
	}
	link("real", "own", 0)
	link(filepath.Join(dir, "real"), "own-absolute", 0)
	link("../own/deep/..", "real/up", 0)
	link("real", "other", nobody)
	link("loop", "loop", 0)
	link("own/../other", "own-to-other", 0)
	file := filepath.Join(dir, "real/file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var want unix.Stat_t
	if err := unix.Stat(file, &want); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{
		"real/file": "", "own/file": "", "own-absolute/file": "", "real//./deep/../file": "", "real/up/file": "", "own/up/up/file": "",
		"other/file":           "symbolic link of user 65534",
		"own-to-other/file":    "symbolic link of user 65534",
		"loop/file":            "too many levels",
		"loop":                 "too many levels",
		"nothing":              "no such file",
		"real/file/x":          "not a directory",
		"own/../../other/file": "no such file",
	} {
		fd, err := Find(filepath.Join(dir, "x")[:len(dir)+1] + path)
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", path, err, why)
		}
		if err == nil {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil || st.Ino != want.Ino {
				t.Errorf("%s is another file", path)
			}
			unix.Close(fd)
		}
	}
	if _, err := Find("relative"); err == nil {
		t.Error("a relative path is found")
	}
	if fd, err := Find("/"); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
	// No socket is made, looked at or removed by such a link.
	for kind := range types {
		refused(t, kind, filepath.Join(dir, "other/s"), "symbolic link of user 65534")
		s := put(t, kind, filepath.Join(dir, "real", kind))
		s.Close()
		if err := Remove(filepath.Join(dir, "other", kind)); err == nil || !exists(t, filepath.Join(dir, "real", kind)) {
			t.Errorf("%s: removed by another's link: %v", kind, err)
		}
	}
	if err := MakeDir(filepath.Join(dir, "other/new")); err == nil || exists(t, filepath.Join(dir, "real/new")) {
		t.Errorf("a directory is made by another's link: %v", err)
	}
	l := put(t, "stream", filepath.Join(dir, "real/listener"))
	defer l.Close()
	if c, err := Dial(context.Background(), filepath.Join(dir, "own/listener")); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if c, err := Dial(context.Background(), filepath.Join(dir, "other/listener")); err == nil {
		c.Close()
		t.Error("connected by another's link")
	}
}

func TestPrivate(t *testing.T) {
	testenv.Root(t)
	base, err := os.MkdirTemp("/run", "sockfile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := func(name string, mode uint32, owner, group int) {
		name = filepath.Join(base, name)
		if err := errors.Join(os.Mkdir(name, 0o700), os.Chown(name, owner, group), unix.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string, owner int) {
		name = filepath.Join(base, name)
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chown(name, owner, owner)); err != nil {
			t.Fatal(err)
		}
	}
	dir("root", 0o755, 0, 0)
	dir("group0", 0o770, 0, 0)
	dir("group", 0o770, 0, 7)
	dir("open", 0o757, 0, 0)
	dir("theirs", 0o755, nobody, 0)
	dir("theirs/root", 0o755, 0, 0)
	dir("sticky", 0o1777, 0, 0)
	dir("closed", 0o700, 0, 7)
	dir("closed/open", 0o777, nobody, 0)
	dir("search", 0o711, 0, 7)
	dir("search/open", 0o777, 0, 0)
	for _, d := range []string{"root", "group0", "group", "open", "theirs", "theirs/root", "sticky", "closed/open", "search/open"} {
		file(d+"/mine", 0)
		file(d+"/other", nobody)
	}
	if err := errors.Join(os.Symlink("../root", base+"/open/link"), os.Symlink("../open", base+"/root/link"), os.Symlink("../open/..", base+"/closed/out")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"root/mine": true, "root/other": true, "root/absent": true, "root/absent/absent": false,
		"group0/mine": true, "group/mine": false, "open/mine": false, "theirs/mine": false, "theirs/root/mine": false,
		"sticky/mine": true, "sticky/other": false, "sticky/absent": false,
		"closed/open/mine": true, "closed/open/absent": true, "search/open/mine": false,
		"open/link/mine": false, "root/link/mine": false,
		"closed/../open/mine": false,
	} {
		if got := Private(base + "/" + path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if Private("relative") {
		t.Error("a relative path is private")
	}
}

// A socket whose file is deleted is made anew, for the same users; connections stay.
func TestServerRenews(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	path := filepath.Join(dir, "s")
	s, err := Serve(path, Access{Anyone, Anyone, 0o600})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conns, ended := make(chan *net.UnixConn), make(chan error, 1)
	go func() {
		for {
			c, err := s.Accept()
			switch {
			case err == nil:
				conns <- c
			case errors.Is(err, net.ErrClosed):
				ended <- err
				return
			default:
				time.Sleep(time.Millisecond)
			}
		}
	}()
	meet := func() (here, there net.Conn) {
		t.Helper()
		testenv.Eventually(t, "the socket is there", func() bool {
			var err error
			there, err = net.Dial("unix", path)
			return err == nil
		})
		return <-conns, there
	}
	here, there := meet()
	defer here.Close()
	defer there.Close()
	for _, mode := range []fs.FileMode{0o600, 0o666} {
		if err := s.SetAccess(Access{Anyone, Anyone, mode}); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		a, b := meet()
		a.Close()
		b.Close()
		if _, _, got := stat(t, path); got != mode {
			t.Errorf("the new socket has mode %v, not %v", got, mode)
		}
	}
	if _, err := here.Write([]byte{1}); err != nil {
		t.Errorf("a connection ended: %v", err)
	}
	// Where there can be none, there is one later.
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(LookEvery+LookEvery/4, func() { os.Remove(dir) })
	a, b := meet()
	a.Close()
	b.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	if _, err := s.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if c, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("after Close somebody listens: %v", err)
	}
}

// Whoever owns a socket's directory cannot keep the next process from taking the socket: those who are
// connected stay, and the socket is made again.
func TestTakeGone(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"the file":      func(dir string) error { return os.Remove(filepath.Join(dir, "s")) },
		"the directory": os.RemoveAll,
		"a file instead of the directory": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			path := filepath.Join(dir, "s")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			former, err := Serve(path, Default)
			if err != nil {
				t.Fatal(err)
			}
			defer former.Close()
			peer, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			fd, err := former.Give()
			if err != nil {
				t.Fatal(err)
			}
			if err := remove(dir); err != nil {
				t.Fatal(err)
			}
			next, err := Take(path, Default, fd)
			unix.Close(fd)
			if err != nil {
				t.Fatalf("it is not taken: %v", err)
			}
			defer next.Close()
			if err := next.SetAccess(Access{Anyone, Anyone, 0o600}); err != nil {
				t.Errorf("who may use the next socket: %v", err)
			}
			_ = os.Remove(dir) // if it is a file
			l, err := next.renew()
			if err != nil {
				t.Fatal(err)
			}
			another, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer another.Close()
			if c, err := l.AcceptUnix(); err != nil {
				t.Error(err)
			} else {
				c.Close()
			}
			if _, _, m := stat(t, path); m != 0o600 {
				t.Errorf("the next socket has mode %v", m)
			}
		})
	}
}

// What a file system says about a socket comes with what to do.
func TestExplain(t *testing.T) {
	for errno, want := range map[unix.Errno]string{unix.ENOSPC: "make room", unix.EDQUOT: "make room", unix.EROFS: "name another path", unix.EACCES: "a directory of your own"} {
		err := Explain("/run/s", &os.PathError{Op: "bind", Path: "/run/s", Err: errno})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "/run/s") != 1 {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
