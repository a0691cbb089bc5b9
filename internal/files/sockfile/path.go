package sockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links on a path, as in the kernel (path_resolution(7)).
const maxLinks = 40

// Find opens the file at path (O_PATH). It follows only links of root and of this
// process's user: another user's link may lead to something that only we may use.
func Find(path string) (fd int, err error) {
	fd, _, err = walk(path)
	return fd, err
}

// Private reports whether only root and this process's user can change where path
// leads. If so, the path is as safe as what Find returned.
func Private(path string) bool {
	fd, private, err := walk(path)
	if err == nil {
		unix.Close(fd)
	}
	return private && (err == nil || errors.Is(err, fs.ErrNotExist))
}

// walk combines Find and Private.
func walk(path string) (fd int, private bool, err error) {
	if !filepath.IsAbs(path) {
		return -1, false, fmt.Errorf("the path %q is not absolute", path)
	}
	w := walker{private: true}
	if err := w.root(); err != nil {
		return -1, false, err
	}
	for left, links := path, 0; ; {
		left = strings.TrimLeft(left, "/")
		if left == "" {
			return w.fd, w.private, nil
		}
		name, rest, _ := strings.Cut(left, "/")
		target, err := w.step(name)
		if target != "" {
			if rest = target + "/" + rest; rest[0] == '/' {
				err = w.root()
			}
			if links++; links > maxLinks {
				err = unix.ELOOP
			}
		}
		if err != nil {
			unix.Close(w.fd)
			if link, ok := err.(foreignLink); ok {
				link.path = path
				err = link
			}
			// Only those who may write to the directory can create a missing last
			// element.
			return -1, w.private && rest == "", err
		}
		left = rest
	}
}

// walker is the position of walk on a path.
type walker struct {
	fd      int // O_PATH
	st      unix.Stat_t
	private bool // nobody else could have redirected it
	closed  bool // nobody else can look into its directory
}

const openPath = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC

func (w *walker) root() error {
	fd, err := unix.Open("/", openPath, 0)
	if err != nil {
		return err
	}
	if w.fd > 0 {
		unix.Close(w.fd)
	}
	w.fd, w.closed = fd, false
	return unix.Fstat(fd, &w.st)
}

// step moves to a name in the directory. For a link it stays and returns the target.
func (w *walker) step(name string) (target string, err error) {
	next, err := unix.Openat(w.fd, name, openPath, 0)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(next, &st)
	}
	w.private = w.private && w.safe(&st, err == nil)
	if name == ".." {
		w.closed = false // not known to be
	}
	if err != nil {
		unix.Close(next)
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		unix.Close(w.fd)
		w.fd, w.st = next, st
		return "", nil
	}
	defer unix.Close(next)
	if !trusted(st.Uid) {
		return "", foreignLink{name: name, uid: st.Uid}
	}
	return readLink(next)
}

// safe reports whether nobody else can replace or create a name in the directory. there
// says that st describes an existing file.
func (w *walker) safe(st *unix.Stat_t, there bool) bool {
	mode, others := w.st.Mode, uint32(0o022)
	if w.st.Gid == 0 {
		others = 0o002 // root's group
	}
	if trusted(w.st.Uid) && mode&(others>>1) == 0 {
		w.closed = true
	}
	sticky := mode&unix.S_ISVTX != 0 && there && trusted(st.Uid)
	return w.closed || trusted(w.st.Uid) && (mode&others == 0 || sticky)
}

// trusted reports whether a user has all rights that this process has, and so gains
// nothing by misleading it.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// foreignLink is a link that is not followed.
type foreignLink struct {
	path, name string
	uid        uint32
}

func (e foreignLink) Error() string {
	return fmt.Sprintf("%q in %s is a symbolic link of user %d, which vswitch does not follow; name the path that it leads to", e.name, e.path, e.uid)
}

func readLink(fd int) (string, error) {
	var b [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", b[:])
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// procPath returns a path to the file that a descriptor refers to, for calls that take
// no descriptor.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Alive reports by its error whether somebody holds the socket that fd refers to
// (O_PATH). The error is nil, EPROTOTYPE or EPERM if so.
func Alive(fd int) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.Connect(s, &unix.SockaddrUnix{Name: procPath(fd)})
}

// dirMode gives a new directory for sockets to its owner and group. passMode lets everybody pass
// through one.
const (
	dirMode  = 0o770
	passMode = 0o011
)

// makeDirs opens dir (O_PATH). It creates dir and its parents where they are absent,
// and returns what it created, dir first.
func makeDirs(dir string) (fd int, made []string, err error) {
	fd, err = Find(dir)
	switch {
	case err == nil:
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			unix.Close(fd)
			return -1, nil, fmt.Errorf("%s is no directory; name another path", dir)
		}
		return fd, nil, nil
	case !errors.Is(err, fs.ErrNotExist):
		return -1, nil, Explain(dir, err)
	}
	above, made, err := makeDirs(filepath.Dir(dir))
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(above)
	fd, err = makeDir(above, filepath.Base(dir))
	if err != nil {
		removeAll(made)
		return -1, nil, Explain(dir, err)
	}
	return fd, append([]string{dir}, made...), nil
}

// makeDir creates a directory in another and opens it.
func makeDir(in int, name string) (int, error) {
	if err := unix.Mkdirat(in, name, dirMode); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(in, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		if err = unix.Fchmod(fd, dirMode); err == nil { // whatever the umask
			return fd, nil
		}
		unix.Close(fd)
	}
	_ = unix.Unlinkat(in, name, unix.AT_REMOVEDIR)
	return -1, err
}

// LetIn lets everybody reach the sockets whose names they know in dir, a directory that
// vswitch made for its user and group: otherwise a socket for others would be out of
// their reach. Default does not need it.
func LetIn(dir string, a Access) error {
	if a == Default {
		return nil
	}
	at, err := Find(dir)
	if err != nil {
		return Explain(dir, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil || st.Mode&passMode == passMode {
		return Explain(dir, err)
	}
	return Explain(dir, unix.Chmod(procPath(at), st.Mode&0o7777|passMode))
}

// removeAll removes directories that were created, unless somebody uses them by now.
func removeAll(made []string) {
	for _, dir := range made {
		_ = unix.Rmdir(dir)
	}
}
