package sockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/account"
)

// Access says who may use a socket. Connecting needs write permission on it (unix(7)).
type Access struct {
	Owner, Group int         // by number; Anyone: the default of the directory and the process
	Mode         fs.FileMode // 0: for the owner and the group
}

// Anyone leaves the owner or the group unchanged.
const Anyone = -1

// ParseAccess parses a user's request: an owner and a group by name or number, and a
// mode as chmod takes it, each empty for the default.
func ParseAccess(owner, group, mode string) (a Access, err error) {
	a = Default
	if owner != "" {
		a.Owner, err = account.User(owner)
	}
	if group != "" && err == nil {
		a.Group, err = account.Group(group)
	}
	if mode != "" && err == nil {
		a.Mode, err = ParseMode(mode)
	}
	return a, err
}

// CheckMode reports what is wrong with a mode for ParseAccess.
func CheckMode(s string) error {
	if s == "" {
		return nil
	}
	_, err := ParseMode(s)
	return err
}

// ParseMode parses a socket's mode: three octal digits, with or without a leading 0.
func ParseMode(s string) (fs.FileMode, error) {
	digits := s
	if len(digits) == 4 && digits[0] == '0' {
		digits = digits[1:]
	}
	n, err := strconv.ParseUint(digits, 8, 9)
	if err != nil || len(digits) != 3 || n == 0 {
		return 0, fmt.Errorf("%q is no mode of a socket; write octal digits such as 0660: owner, group, others", s)
	}
	return fs.FileMode(n), nil
}

// Default allows the process's user, and the group that files in the directory get.
var Default = Access{Anyone, Anyone, defaultMode}

const (
	defaultMode = 0o660
	bornMode    = 0o600 // until SetAccess
)

// File is the socket that a process created at a path. Its methods act on that socket,
// even when another is at the path by now.
type File struct {
	fd       int // O_PATH
	path     string
	dev, ino uint64
	uid, gid uint32 // of a new socket, which Anyone stands for

	through uint32 // the bits of the directory's mode by which others reach the socket, as There saw them
}

// siocUnixFile opens the file that a socket is bound to, O_PATH and close-on-exec
// (SIOCUNIXFILE, linux/un.h).
const siocUnixFile = 0x89e0

// gone returns the File of a socket that nobody finds at its path: it is never There, and who may use it
// is up to the next one.
func gone(path string) *File { return &File{fd: -1, path: path, through: passMode} }

// fileOf returns the file that s is bound to: path, which is in dir.
func fileOf(s socket, dir int, path string) (*File, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	f := &File{fd: -1, path: path}
	if failed := raw.Control(func(fd uintptr) { f.fd, err = unix.IoctlRetInt(int(fd), siocUnixFile) }); failed != nil {
		return nil, failed
	}
	own := err == nil
	if !own {
		// The kernel gives the file only to those who may set up networks. Others have
		// no rights for which swapping the file would pay off.
		if f.fd, err = unix.Openat(dir, filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return nil, Explain(path, err)
		}
	}
	var st unix.Stat_t
	err = unix.Fstat(f.fd, &st)
	if err == nil && !own && (st.Mode&unix.S_IFMT != unix.S_IFSOCK || !trusted(st.Uid)) {
		err = errors.New("another program replaces it; name a path in a directory of your own")
	}
	if err != nil {
		f.Close()
		return nil, Explain(path, err)
	}
	f.dev, f.ino, f.uid, f.gid = st.Dev, st.Ino, st.Uid, st.Gid
	return f, nil
}

// unset finds the owner and group of a new socket in a directory (inode_init_owner, fs/inode.c). The file may
// have others by now.
func (f *File) unset(dir int) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return Explain(f.path, err)
	}
	f.uid, f.gid = uint32(os.Geteuid()), uint32(os.Getegid())
	if st.Mode&unix.S_ISGID != 0 {
		f.gid = st.Gid
	}
	return nil
}

// SetAccess changes the socket's owner, group and mode. At no time in between does it
// admit anyone who is admitted neither before nor after. An error leaves the access
// unchanged.
func (f *File) SetAccess(a Access) error {
	if f.fd < 0 {
		return nil
	}
	owner, group, mode := a.Owner, a.Group, uint32(a.Mode.Perm())
	if owner == Anyone {
		owner = int(f.uid)
	}
	if group == Anyone {
		group = int(f.gid)
	}
	if a.Mode == 0 {
		mode = defaultMode
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return Explain(f.path, err)
	}
	if owner != int(st.Uid) || group != int(st.Gid) {
		if err := f.chmod(st.Mode & mode); err != nil {
			return err
		}
		if err := unix.Fchownat(f.fd, "", owner, group, unix.AT_EMPTY_PATH); err != nil {
			_ = f.chmod(st.Mode)
			if errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("this user may not give socket %s to that owner or group; run vswitch as root, or name a group that its user is in", f.path)
			}
			return Explain(f.path, err)
		}
	}
	return f.chmod(mode)
}

// chmod works without the path, which may lead to another file by now.
func (f *File) chmod(mode uint32) error {
	return Explain(f.path, unix.Chmod(procPath(f.fd), mode&0o777))
}

// LookEvery is how often a socket's holder checks that it is still There: a cleaner of
// temporary files may have deleted it.
const LookEvery = 2 * time.Second

// There reports whether the socket is still at its path. One goroutine calls it.
func (f *File) There() bool {
	var st, dir unix.Stat_t
	if unix.Lstat(f.path, &st) != nil || st.Dev != f.dev || st.Ino != f.ino {
		return false
	}
	if unix.Stat(filepath.Dir(f.path), &dir) == nil {
		f.through = dir.Mode & passMode
	}
	return true
}

// Replace is called for a new socket in place of a former one that was deleted. If the directory was
// deleted as well, those who could pass through it can do so again.
func (f *File) Replace(former *File) error {
	dir := filepath.Dir(f.path)
	at, err := Find(dir)
	if err != nil {
		return Explain(dir, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil || st.Mode&0o7777 != dirMode || !trusted(st.Uid) {
		return Explain(dir, err)
	}
	return Explain(dir, unix.Chmod(procPath(at), dirMode|former.through))
}

// Close closes the descriptor and leaves the socket in place.
func (f *File) Close() { unix.Close(f.fd) }
