package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

// qemuVersion is a version of QEMU; the zero one is not known.
type qemuVersion struct{ major, minor int }

func (v qemuVersion) atLeast(major, minor int) bool {
	return cmp.Or(cmp.Compare(v.major, major), cmp.Compare(v.minor, minor)) >= 0
}

// chardevReconnect has a chardev connect again after a second: by reconnect, which QEMU
// 10.2 no longer takes, or by reconnect-ms, which came with 9.2.
func (v qemuVersion) chardevReconnect() string {
	if v.atLeast(9, 2) {
		return ",reconnect-ms=1000"
	}
	return ",reconnect=1"
}

// streamReconnect does the same for a stream netdev, where reconnect came with 8.0. An
// unknown version may have neither.
func (v qemuVersion) streamReconnect() string {
	switch {
	case v.atLeast(9, 2):
		return ",reconnect-ms=1000"
	case v.atLeast(8, 0):
		return ",reconnect=1"
	}
	return ""
}

var versionText = regexp.MustCompile(`^(\d{1,4})(?:\.(\d{1,4}))?(?:\.\d+)*(?:[ (~+-].*)?$`)

// parseQEMUVersion reads a version such as 9.2 or 8.2.2.
func parseQEMUVersion(s string) (qemuVersion, error) {
	m := versionText.FindStringSubmatch(s)
	if m == nil {
		return qemuVersion{}, fmt.Errorf("%q is not a version of QEMU; write it as 9.2", s)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2]) // "" is 0
	return qemuVersion{major, minor}, nil
}

var versionLine = regexp.MustCompile(`^QEMU emulator version (\d{1,4}\.\d{1,4})`)

// findQEMU asks the QEMU that is here for its version. One that is not there, or does not
// answer soon, is an unknown one.
func findQEMU(ctx context.Context) qemuVersion {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, name := range []string{"qemu-system-" + qemuMachine, "qemu-kvm", "/usr/libexec/qemu-kvm"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, path, "--version")
		cmd.WaitDelay = time.Second
		out, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			continue
		}
		const enough = 4 << 10
		b, _ := io.ReadAll(io.LimitReader(out, enough))
		_ = out.Close()
		_ = cmd.Wait()
		if m := versionLine.FindSubmatch(b); m != nil {
			if v, err := parseQEMUVersion(string(m[1])); err == nil {
				return v
			}
		}
	}
	return qemuVersion{}
}

// qemuMachine is what QEMU calls the processor that vswitch was built for.
var qemuMachine = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
