// Package sandbox takes from the process what a switch does not need: files by landlock(7),
// system calls by seccomp(2), capabilities(7). Enter is called once, when the process has
// opened what only its start needs, and may be called from any goroutine; it restricts all
// threads, for good.
//
// What stays is what adding a port can take at any time: devices, network namespaces below /run
// and their sysctls, BPF maps, and sockets in directories of users.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Modes are the values of `run --sandbox`.
var Modes = []string{"auto", "off", "require"}

// Enter restricts the process: it may write files only below the given directories, which
// exist. It returns what is in force, such as "seccomp", and an error that says what is not.
func Enter(write []string) (inForce []string, err error) {
	var errs []error
	for _, part := range []struct {
		name  string
		enter func() error
	}{
		// Landlock first, while /proc and the rest can be opened. Dropping capabilities is
		// last: the others may take CAP_SYS_ADMIN.
		{fmt.Sprintf("landlock ABI %d", abi()), func() error { return files(write) }},
		{"seccomp", calls},
		{"capabilities", capabilities},
	} {
		if err := part.enter(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", strings.Fields(part.name)[0], err))
		} else {
			inForce = append(inForce, part.name)
		}
	}
	return inForce, errors.Join(errs...)
}

func abi() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

const (
	readFiles  landlock.AccessFSSet = ll.AccessFSReadFile | ll.AccessFSReadDir
	writeFiles                      = readFiles | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSMakeSock |
		ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
	sockets = ll.AccessFSReadDir | ll.AccessFSMakeSock | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir

	// handled are all rights of landlock's fifth version; what no rule grants is denied.
	handled = writeFiles | ll.AccessFSExecute | ll.AccessFSMakeChar | ll.AccessFSMakeFifo | ll.AccessFSMakeBlock |
		ll.AccessFSMakeSym | ll.AccessFSRefer | ll.AccessFSIoctlDev
)

// systemDirs are directories that no port's socket is in.
var systemDirs = []string{"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr"}

// files restricts the files that the process can open, make and remove.
func files(write []string) error {
	if abi() == 0 {
		return errors.New("this kernel does not have it")
	}
	cfg, err := landlock.NewConfig(handled)
	if err != nil {
		return err
	}
	all, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	var users []string
	for _, e := range all {
		if e.IsDir() && !slices.Contains(systemDirs, e.Name()) {
			users = append(users, filepath.Join("/", e.Name()))
		}
	}
	some := func(access landlock.AccessFSSet, paths ...string) landlock.Rule {
		return landlock.PathAccess(access, paths...).IgnoreIfMissing()
	}
	return cfg.BestEffort().RestrictPaths(
		some(readFiles, "/proc", "/sys", "/usr/share/zoneinfo"),
		some(readFiles, "/run"), // named network namespaces
		// Not all of /etc, which has secrets. An account that is made later is found once the
		// switch starts again, or by its number.
		some(ll.AccessFSReadFile, "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf",
			"/etc/localtime", "/dev/null", "/dev/urandom"),
		some(ll.AccessFSReadFile|ll.AccessFSWriteFile|ll.AccessFSIoctlDev, "/dev/net/tun"),
		some(readFiles|ll.AccessFSWriteFile|ll.AccessFSTruncate, "/proc/sys/net"),
		some(writeFiles, "/sys/fs/bpf"),
		some(sockets, users...),
		some(writeFiles, write...),
	)
}

// denied are system calls that a switch never makes. A list of those that it makes would break
// with each version of Go.
var denied = []string{
	"acct", "add_key", "adjtimex", "chroot", "clock_adjtime", "clock_settime", "delete_module", "execve", "execveat",
	"finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load",
	"kexec_load", "keyctl", "lookup_dcookie", "migrate_pages", "mknod", "mknodat", "mount", "mount_setattr", "move_mount",
	"move_pages", "name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "personality",
	"pidfd_getfd", "pivot_root", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl",
	"quotactl_fd", "reboot", "request_key", "sethostname", "setdomainname", "settimeofday", "stime", "swapoff", "swapon",
	"syslog", "umount", "umount2", "unshare", "uselib", "userfaultfd", "vhangup",
}

// calls has denied system calls fail with EPERM. Ending the thread that made one would leave
// half a daemon.
func calls() error {
	if !seccomp.Supported() {
		return errors.New("this kernel does not have it")
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(slices.Clone(denied), func(name string) bool { _, ok := info.SyscallNames[name]; return !ok })
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: names}},
		},
	})
}

// kept are the capabilities that ports take: devices and their sysctls, packet sockets, BPF
// programs, sockets for users of machines and in their directories, ports of the network below
// 1024, and network namespaces (CAP_SYS_ADMIN).
var kept = []int{
	unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE, unix.CAP_BPF, unix.CAP_PERFMON,
	unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_DAC_OVERRIDE, unix.CAP_SYS_ADMIN,
}

// capabilities drops all other capabilities of all threads. A process that has none is done.
func capabilities() error {
	var mask [2]uint32
	for _, c := range kept {
		mask[c/32] |= 1 << (c % 32)
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(kept, c) {
			continue
		}
		// EPERM: the process has no CAP_SETPCAP, so it is no root. EINVAL: an older kernel.
		if _, _, errno := psx.Syscall3(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); errno != 0 && errno != unix.EPERM && errno != unix.EINVAL {
			return errno
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	for i := range data {
		data[i].Effective &= mask[i]
		data[i].Permitted &= mask[i]
		data[i].Inheritable = 0
	}
	return capset(&header, &data)
}
