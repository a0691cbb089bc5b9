package fastpath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// worded is an error that tells the user how to mend it. It replaces the kernel's text.
type worded struct {
	words string
	err   error
}

func (w worded) Error() string { return w.words }
func (w worded) Unwrap() error { return w.err }

// explain turns a kernel error into the reason and what to do about it.
func explain(doing string, err error) error {
	say := func(format string, args ...any) error {
		return worded{doing + ": " + fmt.Sprintf(format, args...), err}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		if missing := missingRights(); len(missing) > 0 {
			return say("needs %s; run vswitch as root, or give it that", strings.Join(missing, ", "))
		}
		if v := (*ebpf.VerifierError)(nil); errors.As(err, &v) && len(v.Log) > 0 {
			return say("the kernel's verifier does not accept them; please report this: %s", strings.Join(last(v.Log, 5), "; "))
		}
		return say("the kernel forbids it though the rights are there; look for a seccomp filter, a security module or lockdown (/sys/kernel/security/lockdown)")
	case errors.Is(err, unix.ENOSYS):
		return say("this kernel has no BPF; it needs CONFIG_BPF_SYSCALL")
	case errors.Is(err, unix.ENOMEM):
		return say("no memory for the tables; use a smaller --fdb-size")
	case errors.Is(err, ebpf.ErrNotSupported):
		return say("this kernel is too old; Linux 6.6 is the first that has all of it")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// last returns the last n lines.
func last(lines []string, n int) []string { return lines[max(len(lines)-n, 0):] }

// missingRights returns the names of the capabilities that the process needs and lacks.
func missingRights() (missing []string) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has [2]unix.CapUserData
	if unix.Capget(&header, &has[0]) != nil {
		return nil
	}
	may := func(c int) bool { return has[c/32].Effective&(1<<(c%32)) != 0 }
	for _, one := range []struct {
		name string
		cap  int
	}{{"CAP_BPF", unix.CAP_BPF}, {"CAP_PERFMON", unix.CAP_PERFMON}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		implied := one.cap != unix.CAP_NET_ADMIN && may(unix.CAP_SYS_ADMIN)
		if !may(one.cap) && !implied {
			missing = append(missing, one.name)
		}
	}
	return missing
}

// unpinned is the reason why nothing can outlive the process.
type unpinned struct{ error }

func (u unpinned) Unwrap() error { return u.error }
