// Package atstart ends a program, with one line that says why, if it may open too few files for Go's runtime.
// The runtime would end it with a page of stack traces, at the first file that a package opens, which is before
// main. So the program imports this package for its effect alone. It imports none that opens a file, and the
// packages that do come after it in the alphabet, in which packages are initialized (the Go specification,
// "Program initialization").
package atstart

import (
	"os"
	"strconv"
	"syscall"
)

// least is for the standard ones, the runtime's two, a connection, a file, and what was inherited.
const least = 12

func init() {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil || r.Cur >= least {
		return
	}
	_, _ = syscall.Write(2, []byte("vswitch: a process may have "+strconv.Itoa(int(r.Cur))+" open files (ulimit -n); vswitch needs "+strconv.Itoa(least)+
		", and `vswitch run` more with each port: raise that (ulimit -n, LimitNOFILE= of the systemd unit)\n"))
	os.Exit(1)
}
