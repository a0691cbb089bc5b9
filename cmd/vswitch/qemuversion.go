package main

import (
	"context"
	"io"
	"os/exec"
	"regexp"
	"runtime"
	"time"

	"github.com/vswitch/vswitch/internal/qemu"
)

var versionLine = regexp.MustCompile(`^QEMU emulator version (\d{1,4}\.\d{1,4})`)

// findQEMU asks the installed QEMU for its version. If there is none, or it does not answer
// soon, the version is unknown.
func findQEMU(ctx context.Context) qemu.Version {
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
		// A program that it started may have its output open after it was ended.
		inTime := context.AfterFunc(ctx, func() { _ = out.Close() })
		const enough = 4 << 10
		b, _ := io.ReadAll(io.LimitReader(out, enough))
		inTime()
		_ = out.Close()
		_ = cmd.Wait()
		if m := versionLine.FindSubmatch(b); m != nil {
			if v, err := qemu.ParseVersion(string(m[1])); err == nil {
				return v
			}
		}
	}
	return qemu.Version{}
}

// qemuMachine is QEMU's name for the processor that vswitch was built for.
var qemuMachine = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
