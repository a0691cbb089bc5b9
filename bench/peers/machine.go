package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine describes where results come from.
type Machine struct {
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	Kernel  string `json:"kernel"`
	System  string `json:"system"`
	Go      string `json:"go"` // of the generator
	Started string `json:"started"`
}

func thisMachine() Machine {
	m := Machine{
		CPU:     field("/proc/cpuinfo", "model name", ":"),
		CPUs:    runtime.NumCPU(),
		System:  strings.Trim(field("/etc/os-release", "PRETTY_NAME", "="), `"`),
		Go:      runtime.Version(),
		Started: time.Now().UTC().Format(time.RFC3339),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// field returns the value of the first line "name<separator>value" in a file.
func field(path, name, separator string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), separator); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// keepAwake makes idle CPUs poll instead of sleeping until the file is closed: it allows them
// no latency (Documentation/power/pm_qos_interface.rst).
func keepAwake() (*os.File, error) {
	f, err := os.OpenFile("/dev/cpu_dma_latency", os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if err := binary.Write(f, binary.NativeEndian, int32(0)); err != nil { // µs
		f.Close()
		return nil, err
	}
	return f, nil
}

// userHZ is the unit of /proc/stat: 1/100 s in all of Linux's user interfaces.
const userHZ = 100

// busyCPU returns the total time that the machine's CPUs were busy.
func busyCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(string(b))
}

// parseBusy reads the first line of /proc/stat (proc_stat(5)): user, nice, system, idle,
// iowait, irq, softirq and steal. Steal is the time another machine took; like idle and
// iowait it is no work of this one. Guests' time is part of user.
func parseBusy(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q; mount /proc", line)
	}
	ticks := uint64(0)
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}
