package fastpath

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/flock"
)

// bpffs is where the kernel's objects get names that outlive processes, and pinRoot
// where the switches have theirs: a folder a switch, in it one a version of the
// programs, in that the tables by name and the devices' links by number.
const (
	bpffs   = "/sys/fs/bpf"
	pinRoot = bpffs + "/vswitch"
)

// ErrInUse is returned where another process has the pins of that name.
var ErrInUse = errors.New("another vswitch of this name is running; stop it, or give this one another name with --name")

// pins are what one switch has there.
type pins struct {
	name string     // of the switch
	lock flock.File // of dir: two processes must not share one
	dir  string     // the switch's
	own  string     // this version's
}

// openPins makes the folders of a switch. The caller has them for itself.
func openPins(name string) (*pins, error) {
	dir, err := pinDir(name)
	if err != nil {
		return nil, unpinned{err}
	}
	if err := mountBpffs(); err != nil {
		return nil, unpinned{err}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, noPlace(err)
	}
	lock, err := lockDir(dir)
	if errors.Is(err, ErrInUse) {
		return nil, err
	}
	if err != nil {
		return nil, unpinned{err}
	}
	p := &pins{name: name, lock: lock, dir: dir, own: filepath.Join(dir, version())}
	if err := os.MkdirAll(p.own, 0o700); err != nil {
		lock.Close()
		return nil, noPlace(err)
	}
	return p, nil
}

// noPlace words why a folder cannot be made.
func noPlace(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return unpinned{worded{"make a folder in " + bpffs + ": this user may not write there", err}}
	}
	return unpinned{fmt.Errorf("make a place for what is in the kernel: %w", err)}
}

func (p *pins) close() { p.lock.Close() }

// pinDir is a switch's folder. A switch of the same name may run in each network
// namespace; the cookie of one is never another's, and the host's is 1.
func pinDir(name string) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("tell network namespaces apart: %w", err)
	}
	const host = 1
	if cookie != host {
		name = fmt.Sprintf("%s@%d", name, cookie)
	}
	return filepath.Join(pinRoot, name), nil
}

// version names what works together: the programs and the tables' layout.
func version() string {
	return fmt.Sprintf("%x", sha256.Sum256(_BpfBytes))[:16]
}

// mountBpffs does what systemd does at boot, where it has not.
func mountBpffs() error {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		if errors.Is(err, unix.EPERM) {
			return worded{"mount " + bpffs + ": needs CAP_SYS_ADMIN; have it mounted before, as systemd does", err}
		}
		return fmt.Errorf("mount %s: %w", bpffs, err)
	}
	return nil
}

func lockDir(dir string) (flock.File, error) {
	f, err := flock.Open(dir, os.O_RDONLY, 0)
	if errors.Is(err, flock.ErrHeld) {
		err = ErrInUse
	}
	return f, err
}

// maps returns the tables that a former process of this version left, if they are all
// there: some would not fit to others.
func (p *pins) maps(spec *ebpf.CollectionSpec) map[string]*ebpf.Map {
	found := make(map[string]*ebpf.Map)
	for name, want := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(p.own, name), nil)
		if err == nil && want.Compatible(m) != nil {
			m.Close()
			err = ebpf.ErrMapIncompatible
		}
		if err != nil {
			for _, m := range found {
				m.Close()
			}
			return nil
		}
		found[name] = m
	}
	return found
}

// keep pins the tables.
func (p *pins) keep(m *bpfMaps) error {
	for name, m := range map[string]*ebpf.Map{
		"counts": m.Counts, "devices": m.Devices, "epochs": m.Epochs, "hashes": m.Hashes, "ports": m.Ports, "recent": m.Recent, "slots": m.Slots, "stations": m.Stations,
	} {
		if err := pin(m, filepath.Join(p.own, name)); err != nil {
			return err
		}
	}
	return nil
}

// pin gives an object a path, where another may be in the way.
func pin(o interface{ Pin(string) error }, path string) error {
	err := o.Pin(path)
	if errors.Is(err, fs.ErrExist) {
		if err = os.Remove(path); err == nil {
			err = o.Pin(path)
		}
	}
	return explain("keep what is in the kernel", err)
}

const linkPrefix = "link-"

func (p *pins) linkPath(ifindex int) string {
	return filepath.Join(p.own, fmt.Sprintf("%s%d", linkPrefix, ifindex))
}

// link returns what a former process attached to a device, of whatever version, nil
// if nothing.
func (p *pins) link(ifindex int) link.Link {
	// Not by a pattern for the links as well: of those there are many to read.
	versions, _ := filepath.Glob(filepath.Join(p.dir, "*"))
	for _, dir := range versions {
		if l, err := link.LoadPinnedLink(filepath.Join(dir, fmt.Sprintf("%s%d", linkPrefix, ifindex)), nil); err == nil {
			return l
		}
	}
	return nil
}

// isAt tells whether a link is at the device that has the number now, in the calling
// thread's network namespace. Its own may have gone, and another have the number.
func isAt(l link.Link, ifindex int) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	there, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	return err == nil && slices.ContainsFunc(there.Programs, func(a link.AttachedProgram) bool {
		id, _ := a.LinkID()
		return id == info.ID
	})
}

// keepLink pins what is attached to a device; what has a pin already is moved.
func (p *pins) keepLink(l link.Link, ifindex int) error { return pin(l, p.linkPath(ifindex)) }

// dropLink takes the pin of a device's link away, and with it the link.
func (p *pins) dropLink(ifindex int) error {
	err := os.Remove(p.linkPath(ifindex))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// clean removes what other versions left, and switches of the name in namespaces that are
// gone, and the links of devices that are none of these.
func (p *pins) clean(but map[int]bool) error {
	stay := make(map[string]bool)
	for ifindex, is := range but {
		stay[p.linkPath(ifindex)] = is
	}
	errs := []error{detach(p.dir, stay), removeDead(p.name, p.dir)}
	versions, err := os.ReadDir(p.dir)
	errs = append(errs, err)
	for _, v := range versions {
		if dir := filepath.Join(p.dir, v.Name()); dir != p.own {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// detach takes the programs of a switch off their devices, but for the pins that stay.
// To remove a pin alone would not do: the device is free when the kernel finds time, and
// until then frames would go the program's way and whatever other there is.
func detach(dir string, stay map[string]bool) error {
	var errs []error
	links, _ := filepath.Glob(filepath.Join(dir, "*", linkPrefix+"*"))
	for _, path := range links {
		if stay[path] {
			continue
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err == nil {
			err = errors.Join(l.Detach(), l.Close())
		}
		errs = append(errs, err, os.Remove(path))
	}
	return errors.Join(errs...)
}

// Cleanup removes what a switch of that name left in the kernel, unless it runs: in the
// calling thread's namespace, and in those that are gone.
func Cleanup(name string) error {
	dir, err := pinDir(name)
	if err != nil {
		return err
	}
	return errors.Join(remove(dir, func() bool { return false }), removeDead(name, dir))
}

// remove removes a switch's folder, unless it is in use, or in force as inForce says.
func remove(dir string, inForce func() bool) error {
	lock, err := lockDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if inForce() {
		return nil
	}
	return errors.Join(detach(dir, nil), os.RemoveAll(dir))
}

// removeDead removes the folders that switches of that name left in namespaces that are
// gone, as those of pods and of CI jobs are. Nobody else would find them: no namespace
// ever has their cookie again. own is the folder in this namespace.
func removeDead(name, own string) error {
	others, err := filepath.Glob(filepath.Join(pinRoot, name+"@*"))
	others = append(others, filepath.Join(pinRoot, name)) // the host's
	for _, dir := range others {
		if dir == own {
			continue
		}
		e := remove(dir, func() bool { return inForce(dir) })
		if !errors.Is(e, ErrInUse) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// inForce reports whether a program of another namespace's folder is at a device there.
// With a namespace its devices go, and links are at none; but a NIC comes back to the
// host's, with the program. What cannot be read may be in force.
func inForce(dir string) bool {
	links, _ := filepath.Glob(filepath.Join(dir, "*", linkPrefix+"*"))
	return slices.ContainsFunc(links, func(path string) bool {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return true
		}
		defer l.Close()
		info, err := l.Info()
		if err != nil || info.TCX() == nil {
			return true
		}
		ifindex := int(info.TCX().Ifindex)
		return ifindex != 0 && !isAt(l, ifindex)
	})
}
