package vhost

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// said returns the requests of messages, with the ring or the number that each is about.
func said(s *setup) (all []string) {
	for _, h := range s.sorted() {
		all = append(all, h.request.String()+" "+string(rune('0'+h.ring)))
	}
	return all
}

// A front end that says something again, takes it back, or stops a ring leaves what is true now,
// in the order in which a fresh back end can hear it.
func TestSetupIsWhatHolds(t *testing.T) {
	var s setup
	defer s.forget(func(setupKey) bool { return true })
	fd := func() []int {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		return []int{fd}
	}
	region := func(at uint64) []byte {
		b := make([]byte, 8)
		for _, v := range []uint64{at, 4096, at, 0} {
			b = binary.NativeEndian.AppendUint64(b, v)
		}
		return b
	}
	for range 3 {
		s.note(SetVringKick, u64(1), fd())
		s.note(SetVringNum, u32(1, 256), nil)
		s.note(SetVringBase, u32(1, 0), nil)
		s.note(SetVringCall, u64(1), fd())
		s.note(GetFeatures, nil, nil)
		s.note(SetMemTable, make([]byte, 40), fd())
		s.note(SetFeatures, u64(1), nil)
	}
	want := []string{"SET_FEATURES 0", "SET_MEM_TABLE 0", "SET_VRING_NUM 1", "SET_VRING_BASE 1", "SET_VRING_CALL 1", "SET_VRING_KICK 1"}
	if got := said(&s); !slices.Equal(got, want) {
		t.Errorf("it says %q, not %q", got, want)
	}
	s.note(GetVringBase, u32(1, 0), nil)
	s.note(AddMemReg, region(0x1000), fd())
	s.note(AddMemReg, region(0x1000), fd())
	s.note(AddMemReg, region(0x2000), fd())
	s.note(RemMemReg, region(0x1000), nil)
	want = []string{"SET_FEATURES 0", "SET_MEM_TABLE 0", "ADD_MEM_REG 0", "SET_VRING_NUM 1", "SET_VRING_BASE 1"}
	if got := said(&s); !slices.Equal(got, want) {
		t.Errorf("it says %q, not %q", got, want)
	}
	s.note(SetVringEnable, u32(0, 1), nil)
	s.note(SetStatus, u64(0xf), nil)
	s.note(SetMemTable, make([]byte, 8), nil)
	s.note(ResetDevice, nil, nil)
	want = []string{"SET_FEATURES 0", "SET_MEM_TABLE 0", "SET_VRING_NUM 1", "SET_VRING_BASE 1"}
	if got := said(&s); !slices.Equal(got, want) {
		t.Errorf("it says %q, not %q", got, want)
	}
}

// A back end that cannot go on with what a front end has set up closes all descriptors of it.
func TestRestoreRefused(t *testing.T) {
	file := func() []int { return []int{memfd(t, 4096, 0)} }
	table := append(u32(1, 0), u64(0, 4096, 0, 0)...)
	before := descriptors(t)
	b := newTestBackend(t)
	err := b.Restore([]Said{
		{SetMemTable, table, file()},
		{SetVringKick, u64(0), file()}, // no eventfd
		{SetVringCall, u64(0), file()},
	})
	if err == nil || !strings.Contains(err.Error(), "SET_VRING_KICK") {
		t.Errorf("what is no eventfd is taken: %v", err)
	}
	b.Disconnect()
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors were open, now %d", before, now)
	}
}

// FuzzSetup: whatever a front end says, what is kept of it is bounded, another back end takes it
// without the front end, and keeps the same.
func FuzzSetup(f *testing.F) {
	f.Add([]byte{2, 8, 1, 0, 0, 0, 0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0, 1, 0, 0, 12, 8, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{37, 40}, make([]byte, 40)...))
	f.Add(append([]byte{18, 8, 1, 0, 0, 0, 1, 0, 0, 0, 39, 8}, u64(15)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		backend := func() *Backend {
			b, err := NewBackend(4, 0, nothing{}, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		from := backend()
		for len(script) >= 2 {
			h := Header{Request: Request(script[0]), Flags: protocolVersion}
			size := min(int(script[1]), len(script)-2)
			payload := script[2:][:size]
			script = script[2+size:]
			var fds FDs
			if _, err := from.hear(from.conversation(), nil, h, payload, &fds); err != nil {
				break
			}
		}
		if n := len(from.setup.messages); n > len(setupOrder)*len(from.rings)+MaxMemSlots {
			t.Errorf("%d messages are kept", n)
		}
		all, err := from.Setup()
		if err != nil {
			t.Fatal(err)
		}
		to := backend()
		if err := to.Restore(all); err == nil {
			if a, b := slices.Collect(maps.Keys(from.setup.messages)), slices.Collect(maps.Keys(to.setup.messages)); len(a) != len(b) {
				t.Errorf("it keeps %v of %v", b, a)
			}
			if from.Acked() != to.Acked() {
				t.Errorf("features %#x became %#x", from.Acked(), to.Acked())
			}
		}
		select {
		case <-from.SetupChanged():
		default:
		}
		from.Disconnect()
		to.Disconnect()
		select {
		case <-from.SetupChanged():
		default:
			t.Error("nobody is told that the front end has gone")
		}
		if len(from.setup.messages)+len(to.setup.messages) > 0 {
			t.Error("something is kept of a front end that has gone")
		}
	})
}

// nothing is a device that does nothing.
type nothing struct{}

func (nothing) Changed()         {}
func (nothing) Announce([6]byte) {}
func (nothing) SetMTU(int)       {}
