package fastpath

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/flock"
	"github.com/vswitch/vswitch/internal/linux/hoststack"
	interfaces "github.com/vswitch/vswitch/internal/linux/link"
)

// bpffs is the file system whose names keep kernel objects alive after a process, and
// pinRoot the folder of all switches: one folder per switch, in it one per version of the
// programs, in that the tables by name and the devices' links by number.
const (
	bpffs   = "/sys/fs/bpf"
	pinRoot = bpffs + "/vswitch"
)

// ErrInUse is returned if another process holds the pins of the same name.
var ErrInUse = errors.New("another vswitch of this name is running; stop it, or give this one another name with --name")

// ErrElsewhere is returned if the lock that is given is not that of the pins that this process
// would use.
var ErrElsewhere = errors.New("the switch has its fast path in another mount of " + bpffs + "; run this in its mount namespace, as by `nsenter -t PID -m -n`")

// sameFile returns ErrElsewhere unless a file is what is at a path.
func sameFile(f *os.File, path string) error {
	is, err := f.Stat()
	if err != nil {
		return err
	}
	if at, err := os.Stat(path); err != nil || !os.SameFile(is, at) {
		return ErrElsewhere
	}
	return nil
}

// pins are the pinned objects of one switch.
type pins struct {
	name string // of the switch
	dir  string // the switch's folder
	own  string // this version's folder

	mu   sync.Mutex
	lock flock.File // of dir: two processes must not share it
	lost error      // somebody removed the pins, and this is why they cannot be made anew
}

// openPins makes the folders of a switch and locks them for the caller, unless the lock is given.
func openPins(name string, given *os.File) (*pins, error) {
	dir, err := pinDir(name)
	if err != nil {
		return nil, unpinned{err}
	}
	p := &pins{name: name, dir: dir, own: filepath.Join(dir, version()), lock: flock.File{File: given}}
	if err := p.makeFolders(); err != nil {
		return nil, err
	}
	return p, nil
}

// makeFolders makes the folders that are not there, and locks the switch's unless it is locked.
func (p *pins) makeFolders() error {
	if err := mountBpffs(); err != nil {
		return unpinned{err}
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return noPlace(err)
	}
	lock, err := p.lock, error(nil)
	if lock.File != nil {
		err = sameFile(lock.File, p.dir)
	} else {
		lock, err = lockDir(p.dir)
	}
	if errors.Is(err, ErrInUse) || errors.Is(err, ErrElsewhere) {
		return err
	}
	if err != nil {
		return unpinned{err}
	}
	if err := os.MkdirAll(p.own, 0o700); err != nil {
		if p.lock.File == nil {
			lock.Close()
		}
		return noPlace(err)
	}
	p.lock = lock
	return nil
}

// areThere reports whether the folders are those that this process made. The caller holds mu.
func (p *pins) areThere() bool {
	if sameFile(p.lock.File, p.dir) != nil {
		return false
	}
	_, err := os.Lstat(p.own)
	return err == nil
}

// restore makes the pins of tables and programs anew if somebody removed them, or mounted
// something over them, and reports whether they are there.
func (p *pins) restore(s *programs) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.areThere() {
		p.lost = nil
		return true
	}
	former := p.lock
	if sameFile(former.File, p.dir) != nil {
		p.lock = flock.File{}
	}
	err := p.makeFolders()
	if err == nil {
		if err = errors.Join(p.keep(s.tables), s.pinAll()); err != nil {
			_ = os.RemoveAll(p.own)
		}
	}
	if err != nil {
		if p.lock.File != nil && p.lock != former {
			p.lock.Close()
		}
		p.lock = former
		if p.lost == nil {
			s.log.Warn("somebody removed what keeps known traffic going without the daemon, and it cannot be put back", "folder", p.dir, "reason", err)
		}
		p.lost = err
		return false
	}
	if p.lock != former {
		former.Close()
	}
	p.lost = nil
	s.log.Warn("somebody removed what keeps known traffic going without the daemon; it is there again", "folder", p.dir)
	return true
}

// areLost reports whether the pins are gone for now.
func (p *pins) areLost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost != nil
}

// noPlace explains why a folder cannot be made.
func noPlace(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return unpinned{worded{"make a folder in " + bpffs + ": this user may not write there", err}}
	}
	return unpinned{fmt.Errorf("make a place for what is in the kernel: %w", err)}
}

func (p *pins) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lock.Close()
}

// pinDir returns a switch's folder. Each network namespace may run a switch of the same
// name; the kernel never reuses a namespace's cookie, and the host's is 1.
func pinDir(name string) (string, error) {
	cookie, err := interfaces.NetnsCookie()
	if err != nil {
		return "", fmt.Errorf("tell network namespaces apart: %w", err)
	}
	const host = 1
	if cookie != host {
		name = fmt.Sprintf("%s@%d", name, cookie)
	}
	return filepath.Join(pinRoot, name), nil
}

// version identifies the programs and the layout of their tables.
func version() string {
	return fmt.Sprintf("%x", sha256.Sum256(_BpfBytes))[:16]
}

// mountBpffs mounts bpffs if systemd has not done so at boot.
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

// maps returns the tables that an earlier process of this version left, or nil unless all
// are there: a part of them would not match new ones.
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
func (p *pins) keep(tables *bpfMaps) error {
	return each(tables, func(name string, table *ebpf.Map) error {
		return pinAgain(table, filepath.Join(p.own, name))
	})
}

// programPrefix is that of the names of programs; those of tables have none.
const programPrefix = "program-"

func (p *pins) programPath(name string) string { return filepath.Join(p.own, programPrefix+name) }

// each calls f for the tables until an error.
func each(tables *bpfMaps, f func(name string, table *ebpf.Map) error) error {
	all := reflect.ValueOf(tables).Elem()
	for i := range all.NumField() {
		if err := f(all.Type().Field(i).Tag.Get("ebpf"), all.Field(i).Interface().(*ebpf.Map)); err != nil {
			return err
		}
	}
	return nil
}

type pinner interface {
	Pin(string) error
	Unpin() error
}

// pinAgain pins an object at a path at which it may have been pinned before: Pin trusts that it still is.
func pinAgain(o pinner, path string) error { return errors.Join(o.Unpin(), pin(o, path)) }

// pin pins an object at a path and replaces whatever is pinned there.
func pin(o pinner, path string) error {
	err := o.Pin(path)
	if errors.Is(err, fs.ErrExist) {
		if err = os.Remove(path); err == nil {
			err = o.Pin(path)
		}
	}
	return explain("keep what is in the kernel", err)
}

// Names of links: link-7 is at the ingress of the device with that number, link-7-out at its
// egress, link-7-under is that of an underlay.
const (
	linkPrefix = "link-"
	egress     = "-out"
)

func linkName(ifindex int, suffix string) string {
	return fmt.Sprintf("%s%d%s", linkPrefix, ifindex, suffix)
}

func (p *pins) linkPath(ifindex int, suffix string) string {
	return filepath.Join(p.own, linkName(ifindex, suffix))
}

// link returns the link that an earlier process of any version attached to a device, nil
// if there is none.
func (p *pins) link(ifindex int, suffix string) link.Link {
	// The pattern leaves the links out: a glob would read all of the many entries.
	versions, _ := filepath.Glob(filepath.Join(p.dir, "*"))
	for _, dir := range versions {
		if l, err := link.LoadPinnedLink(filepath.Join(dir, linkName(ifindex, suffix)), nil); err == nil {
			return l
		}
	}
	return nil
}

// keepLink pins the link of a device; a link that is pinned already is moved.
func (p *pins) keepLink(l link.Link, ifindex int, suffix string) error {
	return pin(l, p.linkPath(ifindex, suffix))
}

// keepLinkAgain pins the link of a device anew.
func (p *pins) keepLinkAgain(l link.Link, ifindex int, suffix string) error {
	return pinAgain(l, p.linkPath(ifindex, suffix))
}

// hasLink reports whether the link of a device is pinned where the next process looks for it.
func (p *pins) hasLink(ifindex int, suffix string) bool {
	_, err := os.Lstat(p.linkPath(ifindex, suffix))
	return err == nil
}

// dropLink removes the pin of a device's link, and with it the link.
func (p *pins) dropLink(ifindex int, suffix string) error {
	err := os.Remove(p.linkPath(ifindex, suffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// clean removes the links of devices that are not in but, nor among the underlays, whatever other versions left,
// and the folders of switches of the same name in namespaces that are gone.
func (p *pins) clean(but map[int]bool, underlays map[int]*underlay) error {
	stay := make(map[string]bool)
	for ifindex := range underlays {
		stay[p.linkPath(ifindex, under)] = true
	}
	for ifindex, is := range but {
		stay[p.linkPath(ifindex, "")], stay[p.linkPath(ifindex, egress)] = is, is
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

// detach removes the programs of a switch from their devices, except for the pins in stay.
// Removing a pin is not enough: the kernel frees the device some time later, and until
// then the program would forward frames that others forward as well.
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

// Cleanup removes what a switch of that name left in the kernel, unless it is running. It
// acts on the calling thread's namespace and on namespaces that are gone.
func Cleanup(name string) error {
	dir, err := pinDir(name)
	if err != nil {
		return err
	}
	return errors.Join(remove(dir, func() bool { return false }), removeDead(name, dir))
}

// remove removes a switch's folder, unless it is in use or inForce returns true.
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
// gone, such as those of pods and CI jobs. Nobody else would find them: no namespace ever
// gets their cookie again. own is the folder of this namespace.
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
// When a namespace goes, its devices go too, and their links have no device; but a NIC
// returns to the host's namespace with the program. An unreadable link counts as in force.
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
		is, _ := hoststack.IsAt(l, ifindex)
		return ifindex != 0 && !is
	})
}
