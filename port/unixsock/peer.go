package unixsock

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
)

// peer is the destination of a dgram port.
//
// A sender's address is the path to which it bound its socket. What that path leads to
// here is another matter: it may be relative, go through links, belong to another
// process in this process's namespaces, or be replaced at any time. The switch may be
// root and the sender an unprivileged user who composes what the switch then sends. So
// a path is looked up once, and frames go to the very socket found, by a descriptor; it
// must belong to the sending user. If only root and the switch's user can change a
// path, frames go to the path itself, which costs less.
type peer struct {
	name   address
	to     address // for sendmsg: name, or the path of fd; empty while there is no peer
	fd     int     // of the socket (O_PATH); 0: none
	uid    uint32  // required owner
	named  bool    // from the port's settings: any owner is fine
	looked time.Time
}

// lookEvery is the interval of lookups for an absent peer while there are frames for
// it.
const lookEvery = 20 * time.Millisecond

// namedPeer returns the peer at a path from the port's settings.
func namedPeer(path string) peer {
	p := peer{name: addressOf(path), named: true}
	if sockfile.Private(path) {
		p.to = p.name
	}
	return p
}

func (p *peer) close() {
	if p.fd > 0 {
		unix.Close(p.fd)
		p.fd = 0
	}
}

// forget records that the socket is gone. Another may be at the same path.
func (p *peer) forget() {
	if p.fd > 0 {
		p.close()
		p.to = address{}
	}
}

// fill looks for the socket at p's path.
func (p *peer) fill() error {
	path := p.name.name()
	find := sockfile.Find
	if !p.named && !sameUser(p.uid) {
		// The owner decides, since links of that user can lead to nothing else.
		find = func(path string) (int, error) {
			return unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
	}
	fd, err := find(path)
	if err != nil {
		return noPeer(path, err)
	}
	if err := p.check(fd, path); err != nil {
		unix.Close(fd)
		return err
	}
	if sockfile.Private(path) {
		unix.Close(fd)
		p.to = p.name
		return nil
	}
	p.fd, p.to = fd, addressOf(fmt.Sprintf("/proc/self/fd/%d", fd))
	return nil
}

// check reports what is wrong with the socket that fd is open on.
func (p *peer) check(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%q is no socket", path)
	}
	if !p.named && st.Uid != p.uid {
		return fmt.Errorf("the machine's user %d names the socket %q, which is user %d's", p.uid, path, st.Uid)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if fs.Type == unix.FUSE_SUPER_MAGIC { // each frame could wait for the file system's server
		return fmt.Errorf("%q is on a FUSE file system; name a socket on another", path)
	}
	return nil
}

// sameUser reports whether a user has all rights that the switch has.
func sameUser(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// seek looks for an absent peer.
func (p *dgramPort) seek() {
	p.mu.Lock()
	next := p.peer
	p.mu.Unlock()
	if next.to.len > 0 {
		return
	}
	err := next.fill() // not under the lock: the file system may be slow
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		p.setReason(cmp.Or(p.doubt, err))
	case p.closed.Load() || p.peer.to.len > 0 || p.peer.name != next.name:
		next.close() // another came meanwhile
	default:
		p.peer = next
	}
}

// believe returns the peer that a sender claims to be.
func (p *dgramPort) believe(from address, c sender) (peer, error) {
	name := from.name()
	next := peer{name: from, uid: c.uid, named: name == p.named}
	switch {
	case from.raw.Path[0] == 0:
		// Anyone can take a free name outside of the file system, and in another
		// network namespace it belongs to someone else.
		if !c.known || !sameUser(c.uid) || !sameNamespace(c.pid, "net") {
			return peer{}, fmt.Errorf("the machine names its socket %q, which is not in the file system; give it a path (local.path of QEMU)", name)
		}
		next.to = from
		return next, nil
	case !filepath.IsAbs(name):
		return peer{}, fmt.Errorf("the machine names its socket %q, which is not absolute; give it a path from / on (local.path of QEMU)", name)
	case !c.known && !next.named:
		return peer{}, errors.New("the machine's user is not known here; let it run as a user of this host")
	}
	if err := next.fill(); err != nil {
		return peer{}, err
	}
	if !next.named && sameUser(c.uid) && !c.sees(name) {
		next.close()
		return peer{}, fmt.Errorf("the machine names the socket %q, which is another here than where the machine runs; let both see it at one path", name)
	}
	return next, nil
}

// held reports whether the peer is alive, so that no other may replace it.
func (p *dgramPort) held() bool {
	s := &p.strange
	if now := time.Now(); now.Sub(s.asked) >= askEvery {
		p.mu.Lock()
		s.asked, s.held = now, p.peer.to.len > 0 && alive(&p.peer.to)
		p.mu.Unlock()
	}
	return s.held
}

// stranger is what is known about a peer that another wants to replace.
type stranger struct {
	asked time.Time
	held  bool
}

// askEvery bounds how often the peer is probed, however many others send.
const askEvery = 10 * time.Millisecond

// alive reports whether somebody holds the datagram socket at an address.
func alive(a *address) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // out of descriptors: nothing is known, so nothing changes
	}
	defer unix.Close(fd)
	errno := connect(fd, a)
	return errno == 0 || errno == unix.EPERM // connected to another: to the port
}

// sender is the process that sent a datagram, as the kernel reports it
// (SCM_CREDENTIALS).
type sender struct {
	pid   int32
	uid   uint32
	known bool
}

// credentials is room for one such message.
type credentials [unix.SizeofCmsghdr + (unix.SizeofUcred+7)&^7]byte

// overflowUID stands for a user unknown to this process's user namespace
// (fs.overflowuid, user_namespaces(7)).
const overflowUID = 65534

func parseCredentials(b []byte) (s sender) {
	m, err := unix.ParseSocketControlMessage(b)
	if err != nil || len(m) == 0 {
		return s
	}
	if m[0].Header.Level != unix.SOL_SOCKET || m[0].Header.Type != unix.SCM_CREDENTIALS || len(m[0].Data) < unix.SizeofUcred {
		return s
	}
	d := m[0].Data
	s.pid, s.uid = int32(binary.NativeEndian.Uint32(d)), binary.NativeEndian.Uint32(d[4:])
	// Without credentials the kernel reports the same as for nobody, but nobody has a
	// process.
	s.known = s.pid != 0 || s.uid != overflowUID
	return s
}

// sees reports whether the process finds the same file at a path as this one does; a
// container may not. A process that cannot be inspected is assumed to.
func (s sender) sees(path string) bool {
	if s.pid <= 0 {
		return true
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", s.pid), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return !errors.Is(err, unix.ENOENT)
	}
	defer unix.Close(fd)
	var here, there unix.Stat_t
	if unix.Lstat(path, &here) != nil || unix.Fstat(fd, &there) != nil {
		return false
	}
	return here.Dev == there.Dev && here.Ino == there.Ino
}

// sameNamespace reports whether a process shares this one's namespace of a type.
func sameNamespace(pid int32, kind string) bool {
	own, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		return false
	}
	other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	return err == nil && own == other
}
