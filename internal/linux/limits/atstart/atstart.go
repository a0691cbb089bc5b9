// Package atstart ends a program, with one line that says why, if it may open too few files for Go's runtime.
// The runtime would end it with a page of stack traces, at the first file that a package opens, which is before
// main. So the program imports this package for its effect. It imports none that opens a file, and the
// packages that do come after it in the alphabet, in which packages are initialized (the Go specification,
// "Program initialization").
package atstart

import (
	"os"
	"strconv"
	"syscall"
)

// least is for the standard ones, the runtime's two, a connection, and files.
const least = 12

// Inherited is how many files the program got open, beside the standard ones.
var Inherited int

func init() {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return
	}
	const most = 64 // of the free numbers that are looked at: those that are open come first
	free := 0
	for fd := 3; free < most && uint64(fd) < r.Cur; fd++ {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno == 0 {
			Inherited++
		} else {
			free++
		}
	}
	if free >= least-3 {
		return
	}
	needs := strconv.Itoa(least + Inherited)
	if Inherited > 0 {
		needs += ", " + strconv.Itoa(Inherited) + " of which it got open"
	}
	_, _ = syscall.Write(2, []byte("vswitch: a process may have "+strconv.Itoa(int(r.Cur))+" open files (ulimit -n); vswitch needs "+needs+
		", and `vswitch run` more with each port: raise that (ulimit -n, LimitNOFILE= of the systemd unit)\n"))
	os.Exit(1)
}
