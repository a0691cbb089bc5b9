package handover

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"time"
)

// Format is the format of the messages that this program speaks. Hello and Claim are read by
// every version, so that each can say why it cannot go on from the other.
const Format = 1

// The conversation between the former process of a switch, the one that starts the next, and
// the next:
//
//	starter ─ POST /v1/upgrade ─▶ former
//	starter ◀─ Hello ─────────── former      how it was started; its outputs as files
//	starter starts the next process, which gets the connection
//	next ──── Claim ───────────▶ former
//	next ◀─── Offer ──────────── former      state, locks, sockets, ports that both may have open
//	next ──── Result ──────────▶ former      it has opened them; the former one goes on meanwhile
//	next ◀─── Rest ───────────── former      which is on hold now: other ports, stations, counters
//	next ──── Result ──────────▶ former      it is ready
//	next ◀─── Go ─────────────── former      …which ends unless the connection ends before
//	next ──── Result ──────────▶ former      it forwards
//	next ◀─── end ────────────── former      it has ended
//
// An error in a Result, or the end of the connection before the last one, makes the former
// process go on.

// Hello says how the former process runs.
type Hello struct {
	Format  int
	Version string

	Args []string // of its command line, without the program's name
	Env  []string
	Dir  string

	PID        int
	Executable FileID
	Netns      FileID // its network namespace
	Cgroup     string // as /proc/self/cgroup shows it
	Managed    bool   // a service manager started it
}

// Claim asks for the switch.
type Claim struct {
	Format  int
	Version string
	PID     int
}

// Offer is what the next process needs beside a working former one. Its files are those of the
// counts, then those of the ports.
type Offer struct {
	Refused string // why there is nothing; empty: there is
	Version string

	State json.RawMessage
	Ports []Port

	Listeners, Locks, StateLocks, Pins, Interfaces int
}

// Port is a port of the former process.
type Port struct {
	Name string

	Open  bool // the former process has it open
	Later bool // what it gives comes in the Rest

	Shut     string // the guard that shut it, and why
	Recovery time.Time

	Given  bool // the following is what it gives
	Format int
	Data   []byte
	Files  int
}

// Rest is what changes until the former process is on hold.
type Rest struct {
	Error    string // why there is none
	Ports    []Port
	Sections map[string]json.RawMessage // what features keep
	Features map[string]Feature         // what they need beside that to go on; one that lacks starts anew
	Stations map[string][]byte          // by port, of 12 bytes each: key and age in seconds
	Counters map[string]Counters        // by port
	Departed Counters
	Injected uint64
	Held     time.Time // since when no frame is forwarded
}

// Feature is what a feature gives.
type Feature struct {
	Format int // of the feature's own
	Data   json.RawMessage
}

// Counters are those of a port.
type Counters struct {
	RX, TX Direction
	Fast   uint64
}

// Direction are the counters of one direction.
type Direction struct {
	Frames, Bytes, Copies uint64
	Dropped               map[string]uint64 // by reason
}

// Result says how a step ended.
type Result struct{ Error string }

// Go lets the next process forward.
type Go struct{}

// Report is what the next process tells the one that started it.
type Report struct {
	Ports, Stations int
	Held            time.Duration
}

// FileID identifies a file on this host.
type FileID struct{ Dev, Ino uint64 }

// IDOf identifies the file at a path; it is zero if there is none.
func IDOf(path string) (id FileID) {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) == nil {
		id = FileID{uint64(st.Dev), st.Ino}
	}
	return id
}

// Netns identifies the network namespace of the process.
func Netns() FileID { return IDOf("/proc/self/ns/net") }

// Cgroup returns the control group of the process.
func Cgroup() string {
	b, _ := os.ReadFile("/proc/self/cgroup")
	return strings.TrimSpace(string(b))
}
