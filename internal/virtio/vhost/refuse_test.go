package vhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// What a front end asks for that cannot be is refused, and leaves neither a descriptor nor a
// mapping. What lies at the bound is taken.
func TestRefusals(t *testing.T) {
	const page = 4096
	have := Region{GPA: 1 << 30, UVA: 1 << 30, Size: page}
	for name, c := range map[string]struct {
		do   func(b *Backend) error
		want string // "": it is taken
	}{
		"a log of nothing":         {func(b *Backend) error { return b.SetLog(memfd(t, page, 0), 0, 0) }, "a log of 0"},
		"a log of a word":          {func(b *Backend) error { return b.SetLog(memfd(t, page, 0), page-8, 8) }, ""},
		"a log at half a word":     {func(b *Backend) error { return b.SetLog(memfd(t, page, 0), 4, 8) }, "at 4"},
		"the longest log":          {func(b *Backend) error { return b.SetLog(memfd(t, 1<<40, 0), 0, 1<<40) }, ""},
		"too long a log":           {func(b *Backend) error { return b.SetLog(memfd(t, 1<<41, 0), 0, 1<<40+1) }, "a log of"},
		"the farthest log":         {func(b *Backend) error { return b.SetLog(memfd(t, 1<<41, 0), 1<<40, 8) }, ""},
		"too far a log":            {func(b *Backend) error { return b.SetLog(memfd(t, 1<<41, 0), 1<<40+8, 8) }, "a log of"},
		"a journal at half a word": {func(b *Backend) error { return b.SetInflight(memfd(t, page, 0), 4, 8, 1) }, "at 4"},
		"a journal at a word":      {func(b *Backend) error { return b.SetInflight(memfd(t, page, 0), 8, page-8, 1) }, ""},
		"the longest journal":      {func(b *Backend) error { return b.SetInflight(memfd(t, 1<<30, 0), 0, 1<<30, 1) }, ""},
		"too long a journal":       {func(b *Backend) error { return b.SetInflight(memfd(t, 1<<31, 0), 0, 1<<30+1, 1) }, "in flight"},
		"the farthest journal":     {func(b *Backend) error { return b.SetInflight(memfd(t, 1<<31, 0), 1<<30, 8, 1) }, ""},
		"too far a journal":        {func(b *Backend) error { return b.SetInflight(memfd(t, 1<<31, 0), 1<<30+8, 8, 1) }, "in flight"},
		"memory that is there":     {func(b *Backend) error { return b.AddMemory(have, memfd(t, page, 0)) }, ""},
		"memory over other":        {func(b *Backend) error { return b.AddMemory(Region{GPA: have.GPA, Size: page}, memfd(t, page, 0)) }, "twice"},
		"memory behind other": {func(b *Backend) error {
			return b.AddMemory(Region{GPA: have.GPA + page, Size: page}, memfd(t, page, 0))
		}, ""},
		"memory that is not there": {func(b *Backend) error { return b.RemoveMemory(Region{GPA: have.GPA, Size: page}) }, "refused"},
		"a table over itself": {func(b *Backend) error {
			return b.SetMemory([]Region{have, have, have}, []int{memfd(t, page, 0), memfd(t, page, 0), memfd(t, page, 0)})
		}, "twice"},
		"a table with a bad region": {func(b *Backend) error {
			return b.SetMemory([]Region{have, {Size: 0}, have}, []int{memfd(t, page, 0), memfd(t, page, 0), memfd(t, page, 0)})
		}, "memory of 0x0"},
		"a kick that is a file":    {func(b *Backend) error { return b.SetKick(0, memfd(t, page, 0)) }, "no eventfd"},
		"a call that is a file":    {func(b *Backend) error { return b.SetCall(0, memfd(t, page, 0)) }, "no eventfd"},
		"a channel that is a file": {func(b *Backend) error { return b.KeepOpen(memfd(t, page, 0)) }, "no unix socket"},
		"a channel of a network": {func(b *Backend) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return b.KeepOpen(fd)
		}, "no unix socket"},
		"a call that is none": {func(b *Backend) error { return b.SetCall(0, -1) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before, mapped := descriptors(t), addresses.taken.Load()
			b := newTestBackend(t)
			if err := b.AddMemory(have, memfd(t, page, 0)); err != nil {
				t.Fatal(err)
			}
			err := c.do(b)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && (len(b.mem.regions) != 1 || b.mem.regions[0].Region != have || addresses.taken.Load() != mapped+page) {
				t.Errorf("then the memory is %+v", b.mem.regions)
			}
			if now := descriptors(t); now != before {
				t.Errorf("%d descriptors were open, now %d", before, now)
			}
			b.Disconnect()
			if now := addresses.taken.Load(); now != mapped {
				t.Errorf("%d bytes were mapped, now %d", mapped, now)
			}
		})
	}
}

// startedRing is a back end of which ring 1 is started, with a file as its memory that can shrink.
func startedRing(t *testing.T, features uint64) (b *Backend, d *device, fd int) {
	t.Helper()
	d = new(device)
	b, err := NewBackend(2, 0, d, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	fd = memfd(t, fuzzSize, 0)
	t.Cleanup(func() { b.Disconnect(); b.Close(); unix.Close(fd) })
	if err := b.SetFeatures(features); err != nil {
		t.Fatal(err)
	}
	addMemory(t, b, fd)
	base := uint32(0)
	if features&FeatureRingPacked != 0 {
		base = uint32(packedStart.bits())
	}
	_, _ = b.SetRingNum(1, fuzzRing), b.SetRingBase(1, base)
	if err := b.SetRingAddr(1, fuzzAddr()); err != nil {
		t.Fatal(err)
	}
	return b, d, fd
}

func addMemory(t *testing.T, b *Backend, fd int) {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = b.AddMemory(Region{GPA: testGPA, UVA: testUVA, Size: fuzzSize}, dup)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A front end that starts a ring without a size, or takes the size away by ending and coming back, is refused.
func TestRingWithoutSize(t *testing.T) {
	for name, features := range map[string]uint64{"split": FeatureVersion1, "packed": FeatureVersion1 | FeatureRingPacked} {
		t.Run(name, func(t *testing.T) {
			b, _, fd := startedRing(t, features)
			b.Disconnect()
			if err := b.SetFeatures(features); err != nil {
				t.Fatal(err)
			}
			addMemory(t, b, fd)
			if err := b.SetRingAddr(1, fuzzAddr()); err != nil {
				t.Fatal(err)
			}
			if err := b.SetKick(1, -1); !errors.Is(err, errNoSize) {
				t.Errorf("it is started: %v", err)
			}
			if b.Ring(1).Begin() {
				t.Error("it is ready")
			}
		})
	}
}

// FuzzFrontEnd has a front end with memory and rings say whatever it likes, while workers take from its rings and give
// to them.
func FuzzFrontEnd(f *testing.F) {
	start := func(features uint64, ring byte) (b []byte) {
		say := func(r Request, fd byte, payload []byte) {
			b = append(append(b, byte(r), fd, byte(len(payload))), payload...)
		}
		addr := fuzzAddr()
		say(SetFeatures, 0, u64(features|FeatureProtocolFeatures))
		say(AddMemReg, 1, u64(0, testGPA, fuzzSize, testUVA, 0))
		say(SetVringNum, 0, u32(uint32(ring), fuzzRing))
		say(SetVringBase, 0, u32(uint32(ring), 1<<15))
		say(SetVringAddr, 0, append(u32(uint32(ring), 0), u64(addr.Desc, addr.Used, addr.Avail, 0)...))
		say(SetVringCall, 2, u64(uint64(ring)))
		say(SetVringKick, 2, u64(uint64(ring)))
		say(SetVringEnable, 0, u32(uint32(ring), 1))
		return b
	}
	f.Add(start(FeatureVersion1, 1))
	f.Add(start(FeatureVersion1|FeatureRingPacked, 1))
	f.Add(append(start(FeatureVersion1|FeatureRingPacked|FeatureIndirect, 0), start(FeatureVersion1|FeatureEventIdx, 1)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		b, err := NewBackend(2, 0, nothing{}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		memory := memfd(t, fuzzSize, 0)
		defer unix.Close(memory)
		defer b.Close()
		defer b.Disconnect()
		for len(script) >= 3 {
			h := Header{Request: Request(script[0]), Flags: protocolVersion}
			which, size := script[1], min(int(script[2]), len(script)-3)
			payload := script[3:][:size]
			script = script[3+size:]
			var fds FDs
			fd, err := -1, error(nil)
			switch which {
			case 1:
				fd, err = unix.FcntlInt(uintptr(memory), unix.F_DUPFD_CLOEXEC, 0)
			case 2:
				fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
			case 3: // the guest writes
				if len(payload) > 2 {
					_, err = unix.Pwrite(memory, payload[2:], int64(binary.NativeEndian.Uint16(payload)))
				}
				h.Request = GetFeatures
			case 4: // its memory goes, and comes back empty
				err = errors.Join(unix.Ftruncate(memory, int64(size)*1024), unix.Ftruncate(memory, fuzzSize))
				h.Request = GetFeatures
			}
			if err != nil {
				t.Fatal(err)
			}
			if fd >= 0 {
				fds.List = []int{fd}
			}
			_, err = b.hear(b.conversation(), nil, h, payload, &fds)
			closeAll(append(fds.List, fds.Reply...))
			if err != nil {
				break
			}
			for _, r := range b.rings {
				work(r)
			}
		}
	})
}

// work has a worker look at a ring.
func work(r *Ring) {
	if !r.Begin() {
		return
	}
	defer r.End()
	for range 4 {
		c, buffers, ok := r.Next(0, r.toGuest())
		if !ok {
			return
		}
		for _, buffer := range buffers {
			if r.toGuest() {
				r.Wrote(buffer, len(buffer.Bytes))
			}
		}
		r.Use(c, 0)
	}
	r.Flush()
}

// The device is told of each change that it may have to act on.
func TestChanges(t *testing.T) {
	b, d, fd := startedRing(t, 0)
	r := b.Ring(1)
	for _, c := range []struct {
		name          string
		do            func()
		usable, ready bool
	}{
		{"kick", func() { _ = b.SetKick(1, -1) }, true, false},
		{"enable", func() { b.EnableRing(1, true) }, true, true},
		{"features", func() { _ = b.SetFeatures(FeatureEventIdx) }, true, true},
		{"memory goes", func() { _ = b.RemoveMemory(Region{GPA: testGPA, UVA: testUVA, Size: fuzzSize}) }, false, false},
		{"memory comes", func() { addMemory(t, b, fd) }, true, true},
		{"all memory goes", func() { _ = b.SetMemory(nil, nil) }, false, false},
		{"memory comes again", func() { addMemory(t, b, fd) }, true, true},
		{"disable", func() { b.EnableRing(1, false) }, true, false},
		{"stop", func() { b.StopRing(1) }, false, false},
		{"start", func() { _ = b.SetKick(1, -1); b.EnableRing(1, true) }, true, true},
		{"reset", b.Reset, false, false},
		{"start again", func() { _ = b.SetKick(1, -1); b.EnableRing(1, true) }, true, true},
		{"end", b.Disconnect, false, false},
	} {
		before, epoch := d.changed.Load(), r.epoch
		parts := append(r.parts[:0], Buffer{Bytes: []byte{1}})
		r.parts = parts
		c.do()
		if d.changed.Load() == before {
			t.Errorf("%s: nobody is told", c.name)
		}
		usable := r.Begin()
		if usable {
			if r.Enabled() != c.ready || r.Failed() {
				t.Errorf("%s: enabled %v, failed %v", c.name, r.Enabled(), r.Failed())
			}
			r.End()
		}
		if usable != c.usable || r.Ready() != c.ready {
			t.Errorf("%s: usable %v, ready %v", c.name, usable, r.Ready())
		}
		if c.name != "enable" && c.name != "disable" && r.epoch == epoch {
			t.Errorf("%s: what was lent goes on", c.name)
		}
		if strings.Contains(c.name, "memory") && parts[:1][0].Bytes != nil {
			t.Errorf("%s: buffers of former memory are kept", c.name)
		}
	}
	if b.Acked() != 0 || r.num != 0 || r.addr != (RingAddr{}) || r.base != 0 || len(b.mem.regions) > 0 {
		t.Errorf("after the end: %+v", r)
	}
}

// Memory that is taken away while a ring starts is an error of the guest's.
func TestFaultAtTheStart(t *testing.T) {
	for _, features := range []uint64{0, FeatureRingPacked} {
		b, _, fd := startedRing(t, features)
		if err := unix.Ftruncate(fd, 0); err != nil {
			t.Fatal(err)
		}
		r := b.Ring(1)
		if features != 0 { // its start touches a journal only
			journal := memfd(t, fuzzSize, 0)
			dup, err := unix.FcntlInt(uintptr(journal), unix.F_DUPFD_CLOEXEC, 0)
			if err == nil {
				err = b.SetInflight(dup, 0, fuzzSize, fuzzRing)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Ftruncate(journal, 0); err != nil {
				t.Fatal(err)
			}
			unix.Close(journal)
		}
		if err := b.SetKick(1, -1); !errors.Is(err, errFault) {
			t.Errorf("features %#x: %v", features, err)
		}
		if r.Begin() {
			t.Errorf("features %#x: the ring is usable", features)
			r.End()
		}
		b.StopRing(1) // which forgets the journal that has gone
	}
}

// Memory that is taken away while a ring is used breaks the ring, whoever touches it: the device
// or another that copies what was lent.
func TestFaultInUse(t *testing.T) {
	for _, lent := range []bool{false, true} {
		b, _, fd := startedRing(t, 0)
		if err := b.SetKick(1, -1); err != nil {
			t.Fatal(err)
		}
		r := b.Ring(1)
		var broke error
		r.broke = func(err error) { broke = err }
		hint := 0
		r.parts = append(r.parts, Buffer{Bytes: b.mem.at(testGPA, 10, &hint)})
		if err := unix.Ftruncate(fd, 0); err != nil {
			t.Fatal(err)
		}
		if lent {
			var l Loan
			r.Lend(&l, 0, 0, 10)
			if l.CopyTo([][]byte{make([]byte, 10)}) {
				t.Error("what is gone was copied")
			}
		} else {
			func() {
				if !r.TryBegin() {
					t.Fatal("the ring is not started")
				}
				defer r.End()
				if r.HasWork() {
					t.Error("there is work in what is gone")
				}
			}()
		}
		if !errors.Is(broke, errFault) || r.Begin() {
			t.Errorf("lent %v: it breaks with %v", lent, broke)
		}
	}
}

// What was lent is taken back when the ring is opened anew, even if it is usable again at once.
func TestLoanEndsWithItsQueue(t *testing.T) {
	b, _, _ := startedRing(t, 0)
	if err := b.SetKick(1, -1); err != nil {
		t.Fatal(err)
	}
	r := b.Ring(1)
	lend := func() (l Loan) {
		hint := 0
		r.parts = append(r.parts[:0], Buffer{Bytes: b.mem.at(testGPA, 10, &hint)})
		r.Lend(&l, 0, 0, 10)
		return l
	}
	l := lend()
	if !l.CopyTo([][]byte{make([]byte, 10)}) {
		t.Error("what is lent cannot be copied")
	}
	if err := b.SetFeatures(FeatureEventIdx); err != nil {
		t.Fatal(err)
	}
	if l.CopyTo([][]byte{make([]byte, 10)}) || !r.Begin() {
		t.Error("what was lent by a former queue is copied, or the ring is not usable")
	} else {
		r.End()
	}
	if l = lend(); !l.CopyTo([][]byte{make([]byte, 10)}) {
		t.Error("what is lent anew cannot be copied")
	}
}

// A live migration is told of what is written to buffers once it asked for that, and of writes to
// the ring itself if it asked for those, too.
func TestLogIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		features uint64
		log      bool
		ring     bool
	}{{0, true, true}, {FeatureLogAll, false, true}, {FeatureLogAll, true, false}, {FeatureLogAll, true, true}} {
		b, _, _ := startedRing(t, c.features)
		if c.log {
			if err := b.SetLog(memfd(t, 4096, 0), 0, 4096); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.SetKick(1, -1); err != nil {
			t.Fatal(err)
		}
		a := fuzzAddr()
		a.Log, a.LogAddr = c.ring, 7*logPage
		if err := b.SetRingAddr(1, a); err != nil { // as a migration does, while the ring runs
			t.Fatal(err)
		}
		r := b.Ring(1)
		if !r.Begin() {
			t.Fatal("the ring is not usable")
		}
		hint := 0
		r.Wrote(Buffer{Bytes: b.mem.at(testGPA, 10, &hint), gpa: 3 * logPage}, 1)
		r.Use(Chain{}, 0)
		r.Flush()
		r.End()
		logged := c.features != 0 && c.log
		bit := func(n int) bool { return b.log != nil && b.log.bits[0]>>n&1 == 1 }
		if bit(3) != logged || bit(7) != (logged && c.ring) {
			t.Errorf("%+v: a buffer %v, the ring %v", c, bit(3), bit(7))
		}
	}
}

// What is kept of a set-up is kept whole or not at all.
func TestSetupFails(t *testing.T) {
	before := descriptors(t)
	b := newTestBackend(t)
	good := memfd(t, 4096, 0)
	if kept, err := b.setup.keep(SetMemTable, []int{good, -1}); err == nil || len(kept) > 0 {
		t.Errorf("a descriptor that is none is kept: %v", kept)
	}
	if kept, err := b.setup.keep(GetFeatures, []int{good}); err != nil || kept != nil {
		t.Errorf("descriptors of what is not noted are kept: %v, %v", kept, err)
	}
	if out, err := b.hear(b.conversation(), nil, Header{Request: SetMemTable, Flags: protocolVersion}, u64(2), &FDs{List: []int{good, -1}}); err == nil || len(out) > 0 || b.setup.messages != nil {
		t.Errorf("a message with a descriptor that is none: %v", err)
	}
	if now := descriptors(t); now != before+1 {
		t.Errorf("%d descriptors were open, now %d", before+1, now)
	}

	b.setup.note(SetVringBase, u32(1, 5), nil)
	b.setup.note(SetVringCall, u64(1), []int{-1})
	b.setup.note(SetFeatures, u64(0), []int{good})
	if all, err := b.Setup(); err == nil || all != nil {
		t.Errorf("a set-up whose descriptors are gone is %v, %v", all, err)
	}
	if now := descriptors(t); now != before+1 {
		t.Errorf("%d descriptors were open, now %d", before+1, now)
	}

	c := newTestBackend(t)
	err := c.Restore([]Said{
		{Request: SetFeatures, Payload: u64(FeatureVersion1), FDs: []int{memfd(t, 4096, 0)}},
		{Request: SetVringNum, Payload: u32(0, 0)}, // no such ring
		{Request: SetOwner, FDs: []int{memfd(t, 4096, 0)}},
	})
	if err == nil || !strings.Contains(err.Error(), "set up: SET_VRING_NUM") {
		t.Errorf("restored: %v", err)
	}
	if err := c.Restore([]Said{{Request: SetMemTable, Payload: u64(0), FDs: []int{-1}}, {Request: SetOwner, FDs: []int{memfd(t, 4096, 0)}}}); err == nil {
		t.Error("a descriptor that is none is restored")
	}
	b.Disconnect()
	c.Disconnect()
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors were open, now %d", before, now)
	}
}

// The place in a message of a ring's base is where the ring is, started or not.
func TestSetupHasThePlace(t *testing.T) {
	b, _, _ := startedRing(t, 0)
	b.setup.note(SetVringBase, u32(1, 99), nil)
	place := func(want uint32) {
		t.Helper()
		all, err := b.Setup()
		if err != nil || len(all) != 1 || !bytes.Equal(all[0].Payload, u32(1, want)) {
			t.Errorf("%v, %v; want the place %d", all, err, want)
		}
	}
	_ = b.SetRingBase(1, 5)
	place(5)
	if err := b.SetKick(1, -1); err != nil {
		t.Fatal(err)
	}
	place(0) // a split ring has its place in its used index
	b.Ring(1).q.use(Chain{}, 0)
	place(1)
	b.StopRing(1)
	place(1)
}

// A journal belongs to one ring, and no part of it lies beyond the memory for all.
func TestJournals(t *testing.T) {
	f := inflight{bytes: make([]byte, 3*journalSize(16)), size: 16}
	for i := range f.bytes {
		f.bytes[i] = byte(i / journalSize(16))
	}
	for _, c := range []struct {
		ring, size int
		ok         bool
	}{{0, 16, true}, {2, 16, true}, {2, 1, true}, {3, 16, false}, {0, 17, false}, {1, 0, true}} {
		j := f.journal(c.ring, c.size)
		if (j != nil) != c.ok || c.ok && (!bytes.Equal(j, bytes.Repeat([]byte{byte(c.ring)}, journalSize(16))) || cap(j) != len(j)) {
			t.Errorf("ring %d of %d descriptors: % x", c.ring, c.size, j)
		}
	}

	b := newTestBackend(t)
	fd, length, err := b.MakeInflight(100)
	if err != nil || length != 2*uint64(journalSize(100)) {
		t.Fatalf("%d bytes, %v", length, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || uint64(st.Size) != length {
		t.Errorf("a file of %d bytes, %v, for %d", st.Size, err, length)
	}
	if err := b.SetInflight(fd, 0, length, 100); err != nil {
		t.Fatal(err)
	}
	r := b.Ring(1)
	r.num = 100
	if j := b.journalOf(r); len(j) != journalSize(100) {
		t.Errorf("a journal of %d bytes", len(j))
	}
	if err := b.KeepInflight(filepath.Join(t.TempDir(), "rings")); err != nil {
		t.Fatal(err)
	}
	r.num = 101
	if j := b.journalOf(r); j != nil {
		t.Error("what a front end keeps is not enough, and the back end's own is taken")
	}

	before := descriptors(t)
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "no", "rings"), dir, "/dev/full"} {
		c := newTestBackend(t)
		if err := c.KeepInflight(path); err == nil || !strings.Contains(err.Error(), path) || c.journalOf(c.Ring(0)) != nil {
			t.Errorf("a journal is kept in %s: %v", path, err)
		}
	}
	if err := unix.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := newTestBackend(t).KeepInflight(filepath.Join(dir, "link")); err == nil {
		t.Error("a journal is kept behind a link")
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors were open, now %d", before, now)
	}
}

// TestWait has a ring waited for in each of its states.
func TestWait(t *testing.T) {
	waiting := func(r *Ring) (done chan struct{}) {
		done = make(chan struct{})
		go func() { r.Wait(); close(done) }()
		return done
	}
	for name, state := range map[string]func(r *Ring){
		"stopped": func(*Ring) {},
		"broken":  func(r *Ring) { r.q, r.err = &fakeQueue{}, errFault },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRing(1, new(memory), nil)
				state(r)
				for range 2 {
					done := waiting(r)
					time.Sleep(time.Hour)
					select {
					case <-done:
						t.Fatal("nobody woke it")
					default:
					}
					r.Wake()
					<-done
					r.Wake() // before it waits
					r.Wake()
					r.Wait()
				}
			})
		})
	}
	t.Run("polled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRing(1, new(memory), nil)
			r.q = &fakeQueue{}
			start := time.Now()
			r.Wait()
			if d := time.Since(start); d != pollEvery {
				t.Errorf("it is looked at again after %v", d)
			}
			r.Wake()
			r.Wait()
			if d := time.Since(start); d != pollEvery {
				t.Errorf("after it was woken it waits for %v", d)
			}
		})
	})
	t.Run("kicked", func(t *testing.T) {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		kick, err := openKick(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer kick.Close()
		r := newRing(1, new(memory), nil)
		asked := make(chan bool, 1)
		q := &fakeQueue{onAsk: func(on bool) { asked <- on }}
		r.q, r.kick = q, kick
		r.conn, _ = kick.SyscallConn()
		asks := func(done chan struct{}) {
			t.Helper()
			select {
			case on := <-asked:
				if !on {
					t.Error("kicks are turned off")
				}
			case <-done:
				t.Fatal("it does not wait")
			case <-time.After(patience):
				t.Fatal("nobody asks for a kick")
			}
		}
		ends := func(done chan struct{}) {
			t.Helper()
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("it waits on")
			}
		}
		for range 3 {
			done := waiting(r)
			asks(done)
			r.Wake()
			ends(done)
		}
		done := waiting(r)
		asks(done)
		r.mu.Lock()
		q.available = true
		r.mu.Unlock()
		if _, err := unix.Write(fd, one); err != nil {
			t.Fatal(err)
		}
		ends(done)
	})
}

// Who waits for a ring goes on once the ring can be used: when it starts, and when the memory that it
// lies in is there again.
func TestWaitForTheStart(t *testing.T) {
	b, _, fd := startedRing(t, 0)
	r := b.Ring(1)
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"its start", func() {
			kick, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			if err == nil {
				err = b.SetKick(1, kick)
			}
			if err != nil {
				t.Error(err)
			}
		}},
		{"its memory", func() { addMemory(t, b, fd) }},
	} {
		done := make(chan struct{})
		go func() { r.Wait(); close(done) }()
		c.do()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("who waits does not notice %s", c.name)
		}
		if !r.Begin() {
			t.Fatalf("after %s it cannot be used", c.name)
		}
		r.End()
		if err := b.SetMemory(nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A ring that is broken takes and gives nothing, and calls nobody.
func TestBrokenRing(t *testing.T) {
	b, _, _ := startedRing(t, 0)
	var broke []error
	r := b.Ring(1)
	r.broke = func(err error) { broke = append(broke, err) }
	if err := b.SetKick(1, -1); err != nil {
		t.Fatal(err)
	}
	call, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := unix.FcntlInt(uintptr(call), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	called := func() bool {
		var buf [8]byte
		n, _ := unix.Read(watch, buf[:])
		return n == 8
	}
	if err := b.SetCall(1, call); err != nil {
		t.Fatal(err)
	}
	if !called() {
		t.Error("what was used before the descriptor came is not told")
	}
	if !r.Begin() {
		t.Fatal("the ring is not usable")
	}
	if r.Flush(); called() {
		t.Error("a call without news")
	}
	r.Use(Chain{}, 0)
	if r.Flush(); !called() {
		t.Error("no call for what is used")
	}
	r.Use(Chain{}, 0)
	r.Fail(errReadOnly)
	r.Flush()
	if called() || !r.Failed() || r.Singles(false) != nil {
		t.Error("a ring that broke goes on")
	}
	if _, _, ok := r.Next(0, false); ok || len(broke) != 1 || !errors.Is(broke[0], errReadOnly) {
		t.Errorf("it breaks with %v", broke)
	}
	r.End()
	if r.Ready() || r.HasWork() || r.TryBegin() || r.Begin() {
		t.Error("a broken ring is ready")
	}
	before := descriptors(t)
	b.StopRing(1)
	if now := descriptors(t); now != before-1 {
		t.Errorf("%d descriptors were open, now %d; the call of a stopped ring is kept", before, now)
	}
}
