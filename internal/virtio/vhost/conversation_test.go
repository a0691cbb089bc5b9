package vhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
)

// recorder notes what a Conversation has done, and which descriptors it gave away.
type recorder struct {
	rings int
	calls []string
	owned []int
	err   error // of everything
	log   [2]uint64
	base  uint32
	mac   [6]byte
	mtu   int
	mem   []Region
	addr  RingAddr
	num   uint32
	on    map[int]bool
}

func newRecorder() *recorder { return &recorder{rings: 4, base: 7, on: map[int]bool{}} }

func (r *recorder) did(what string, fds ...int) error {
	r.calls = append(r.calls, what)
	for _, fd := range fds {
		if fd >= 0 {
			r.owned = append(r.owned, fd)
		}
	}
	return r.err
}

func (r *recorder) Features() uint64         { return RingFeatures | 1<<15 }
func (r *recorder) SetFeatures(uint64) error { return r.did("features") }
func (r *recorder) NumRings() int            { return r.rings }
func (r *recorder) SetMemory(m []Region, fds []int) error {
	r.mem = m
	return r.did("memory", fds...)
}
func (r *recorder) AddMemory(m Region, fd int) error {
	r.mem = append(r.mem, m)
	return r.did("add", fd)
}
func (r *recorder) RemoveMemory(Region) error { return r.did("remove") }
func (r *recorder) SetLog(fd int, offset, size uint64) error {
	r.log = [2]uint64{offset, size}
	return r.did("log", fd)
}
func (r *recorder) SetRingNum(_ int, n uint32) error     { r.num = n; return r.did("num") }
func (r *recorder) SetRingAddr(_ int, a RingAddr) error  { r.addr = a; return r.did("addr") }
func (r *recorder) SetRingBase(_ int, base uint32) error { r.base = base; return r.did("base") }
func (r *recorder) StopRing(int) uint32                  { _ = r.did("stop"); return r.base }
func (r *recorder) SetKick(_, fd int) error              { return r.did("kick", fd) }
func (r *recorder) SetCall(_, fd int) error              { return r.did("call", fd) }
func (r *recorder) EnableRing(ring int, on bool)         { r.on[ring] = on; _ = r.did("enable") }
func (r *recorder) Announce(mac [6]byte)                 { r.mac = mac; _ = r.did("announce") }
func (r *recorder) SetMTU(mtu int)                       { r.mtu = mtu; _ = r.did("mtu") }
func (r *recorder) KeepOpen(fd int) error                { return r.did("keep", fd) }
func (r *recorder) MakeInflight(size int) (int, uint64, error) {
	return 50, uint64(size), r.did("make")
}
func (r *recorder) SetInflight(fd int, offset, length uint64, size int) error {
	r.log = [2]uint64{offset, length + uint64(size)}
	return r.did("inflight", fd)
}
func (r *recorder) Reset() { _ = r.did("reset") }

func u64(v ...uint64) (b []byte) {
	for _, v := range v {
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return b
}

func u32(v ...uint32) (b []byte) {
	for _, v := range v {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// The payloads are written out as the specification has them.
func TestConversation(t *testing.T) {
	const ack = flagNeedReply
	region := Region{0x1000, 0x2000, 0x7f00_0000_0000, 0x3000}
	wire := u64(0x1000, 0x2000, 0x7f00_0000_0000, 0x3000)
	r := newRecorder()
	c := NewConversation(r)
	for i, step := range []struct {
		request Request
		flags   uint32
		payload []byte
		fds     []int
		reply   []byte // payload; nil: none
		call    string
	}{
		{GetFeatures, 0, nil, nil, u64(RingFeatures | 1<<15), ""},
		{SetFeatures, ack, u64(FeatureVersion1 | FeatureProtocolFeatures), nil, nil, "features"}, // not agreed on yet
		{GetProtocolFeatures, 0, nil, nil, u64(0x1b03f), ""},
		{SetProtocolFeatures, 0, u64(0x1b03f), nil, nil, ""},
		{GetQueueNum, 0, nil, nil, u64(2), ""},
		{GetMaxMemSlots, 0, nil, nil, u64(509), ""},
		{SetBackendReqFD, ack, nil, []int{30}, u64(0), "keep"},
		{SetOwner, 0, nil, nil, nil, ""},
		{SetVringEnable, 0, u32(3, 1), nil, nil, "enable"},
		{SetStatus, 0, u64(8), nil, nil, ""},
		{GetStatus, 0, nil, nil, u64(8), ""},
		{AddMemReg, ack, append(u64(0), wire...), []int{31}, u64(0), "add"},
		{RemMemReg, ack, append(u64(0), wire...), []int{32}, u64(0), "remove"}, // fd is not needed
		{SetMemTable, ack, slices.Concat(u32(2, 0), wire, wire), []int{33, 34}, u64(0), "memory"},
		{SetVringNum, 0, u32(1, 256), nil, nil, "num"},
		{SetVringBase, 0, u32(1, 9), nil, nil, "base"},
		{SetVringAddr, 0, append(u32(1, 1), u64(10, 20, 30, 40)...), nil, nil, "addr"},
		{SetVringKick, 0, u64(1), []int{35}, nil, "kick"},
		{SetVringKick, 0, u64(1 | 1<<8), nil, nil, "kick"},
		{SetVringCall, 0, u64(3), []int{36}, nil, "call"},
		{SetVringErr, 0, u64(1), []int{37}, nil, ""},
		{GetVringBase, 0, u32(1, 0), nil, u32(1, 9), "stop"},
		{GetInflightFD, 0, append(u64(0, 0), u32(256<<16|4, 0)...), nil, append(u64(256, 0), u32(256<<16|4, 0)...), "make"},
		{SetInflightFD, ack, append(u64(128, 8), u32(256<<16|4)...), []int{39}, u64(0), "inflight"},
		{SetLogBase, 0, u64(4096, 64), []int{38}, u64(0), "log"},
		{SendRARP, ack, []byte{1, 2, 3, 4, 5, 6, 0, 0}, nil, u64(0), "announce"},
		{NetSetMTU, ack, u64(9000), nil, u64(0), "mtu"},
		{NetSetMTU, ack, u64(67), nil, u64(1), ""},
		{ResetOwner, ack, nil, nil, u64(0), ""},
		{ResetDevice, ack, nil, nil, u64(0), "reset"},
		{Request(99), ack, nil, nil, u64(1), ""}, // unknown
		{Request(99), 0, nil, nil, nil, ""},
		{SetFeatures, 0, u64(FeatureVersion1), nil, nil, "features enable enable enable enable"},
	} {
		r.calls = nil
		fds := FDs{List: slices.Clone(step.fds)}
		out, err := c.Handle(nil, Header{step.request, 1 | step.flags, uint32(len(step.payload))}, step.payload, &fds)
		if err != nil {
			t.Fatalf("step %d, %v: %v", i, step.request, err)
		}
		var want []byte
		if step.reply != nil {
			want = append(u32(uint32(step.request), 5, uint32(len(step.reply))), step.reply...)
		}
		if step.request == GetInflightFD && !slices.Equal(fds.Reply, []int{50}) {
			t.Errorf("descriptors %v go with the reply", fds.Reply)
		}
		if !bytes.Equal(out, want) {
			t.Errorf("step %d, %v: reply %x, want %x", i, step.request, out, want)
		}
		var calls string
		for i, c := range r.calls {
			if i > 0 {
				calls += " "
			}
			calls += c
		}
		if calls != step.call {
			t.Errorf("step %d, %v: did %q, want %q", i, step.request, calls, step.call)
		}
	}
	if !slices.Equal(r.mem, []Region{region, region}) || r.num != 256 || r.base != 9 || r.mtu != 9000 ||
		r.log != [2]uint64{64, 4096} || r.mac != [6]byte{1, 2, 3, 4, 5, 6} ||
		r.addr != (RingAddr{true, 10, 20, 30, 40}) || !r.on[3] {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(r.owned, []int{30, 31, 33, 34, 35, 36, 39, 38}) {
		t.Errorf("gave away %v", r.owned)
	}
}

// What cannot be understood ends the conversation; what failed is told or ends it.
func TestConversationEnds(t *testing.T) {
	for name, m := range map[string]struct {
		request Request
		payload []byte
		fds     []int
	}{
		"short payload":         {SetFeatures, make([]byte, 7), nil},
		"features not offered":  {SetFeatures, u64(1 << 40), nil},
		"protocol not offered":  {SetProtocolFeatures, u64(1 << 14), nil},
		"ring that is not":      {SetVringNum, u32(4, 256), nil},
		"ring without length":   {SetVringNum, u32(0, 0), nil},
		"ring too long":         {SetVringNum, u32(0, 65536), nil},
		"enabled twice":         {SetVringEnable, u32(0, 2), nil},
		"kick without fd":       {SetVringKick, u64(0), nil},
		"call without fd":       {SetVringCall, u64(0), nil},
		"memory without fd":     {AddMemReg, make([]byte, 40), nil},
		"too few fds":           {SetMemTable, append(u32(2, 0), make([]byte, 64)...), []int{1}},
		"too many regions":      {SetMemTable, append(u32(9, 0), make([]byte, 9*32)...), nil},
		"regions that are not":  {SetMemTable, append(u32(8, 0), make([]byte, 32)...), nil},
		"log without fd":        {SetLogBase, u64(1, 0), nil},
		"log not in shared mem": {SetLogBase, u64(1), nil},
	} {
		r := newRecorder()
		c := NewConversation(r)
		if _, err := c.Handle(nil, Header{SetProtocolFeatures, 1, 8}, u64(protocolFeatures), new(FDs)); err != nil {
			t.Fatal(err)
		}
		fds := FDs{List: m.fds}
		if out, err := c.Handle(nil, Header{m.request, 1 | flagNeedReply, 0}, m.payload, &fds); err == nil || len(out) > 0 {
			t.Errorf("%s: reply %x, error %v", name, out, err)
		}
	}
	r := newRecorder()
	r.err = errors.New("broken")
	if _, err := NewConversation(r).Handle(nil, Header{SetVringNum, 1, 0}, u32(0, 4), new(FDs)); !errors.Is(err, r.err) {
		t.Errorf("an action that fails: %v", err)
	}
}

// Features are bits with the numbers of virtio 1.2, 6, which vhosttest has by itself.
func TestFeatureBits(t *testing.T) {
	for feature, want := range map[uint64]uint64{
		FeatureNotifyOnEmpty: 1 << 24, FeatureLogAll: vhosttest.LogAll, FeatureAnyLayout: vhosttest.AnyLayout,
		FeatureIndirect: vhosttest.Indirect, FeatureEventIdx: vhosttest.EventIdx, FeatureProtocolFeatures: vhosttest.Protocol,
		FeatureVersion1: vhosttest.Version1, FeatureRingPacked: vhosttest.RingPacked, FeatureInOrder: vhosttest.InOrder,
	} {
		if feature != want || RingFeatures&feature == 0 {
			t.Errorf("a feature is %#x, want %#x", feature, want)
		}
	}
}

// A request has at least its payload; what lies at a bound is taken, what lies behind it is not.
func TestConversationBounds(t *testing.T) {
	say := func(r Request, payload []byte, fds ...int) error {
		c := NewConversation(newRecorder())
		c.protocol = protocolFeatures
		_, err := c.Handle(nil, Header{r, protocolVersion | flagNeedReply, uint32(len(payload))}, payload, &FDs{List: fds})
		return err
	}
	for r, size := range map[Request]int{
		SetFeatures: 8, SetMemTable: 8, SetLogBase: 16, SetVringNum: 8, SetVringAddr: 40, SetVringBase: 8, GetVringBase: 8,
		SetVringKick: 8, SetVringCall: 8, SetVringErr: 8, SetProtocolFeatures: 8, SetVringEnable: 8, SendRARP: 8, NetSetMTU: 8,
		GetInflightFD: 20, SetInflightFD: 20, AddMemReg: 40, RemMemReg: 40, SetStatus: 8,
	} {
		var fds []int
		switch r {
		case SetLogBase, SetVringKick, SetVringCall, SetInflightFD, AddMemReg:
			fds = []int{9}
		}
		payload := make([]byte, size)
		if r == SetVringNum {
			payload[4] = 1
		}
		if err := say(r, payload, fds...); err != nil {
			t.Errorf("%v with its payload: %v", r, err)
		}
		if err := say(r, payload[:size-1], fds...); err == nil {
			t.Errorf("%v with a byte less is taken", r)
		}
	}
	for name, c := range map[string]struct {
		ok  bool
		err error
	}{
		"the last ring":        {true, say(SetVringBase, u32(3, 0))},
		"one more":             {false, say(SetVringBase, u32(4, 0))},
		"a kick of ring 3":     {true, say(SetVringKick, u64(3|1<<8))},
		"a kick of ring 4":     {false, say(SetVringKick, u64(4|1<<8))},
		"the longest ring":     {true, say(SetVringNum, u32(0, 32768))},
		"a longer ring":        {false, say(SetVringNum, u32(0, 32769))},
		"eight regions":        {true, say(SetMemTable, append(u64(8), make([]byte, 8*32)...), 1, 2, 3, 4, 5, 6, 7, 8)},
		"nine regions":         {false, say(SetMemTable, append(u64(9), make([]byte, 9*32)...), 1, 2, 3, 4, 5, 6, 7, 8, 9)},
		"one file too many":    {false, say(SetMemTable, append(u64(1), make([]byte, 32)...), 1, 2)},
		"no file in flight":    {false, say(SetInflightFD, make([]byte, 20))},
		"enabled":              {true, say(SetVringEnable, u32(0, 1))},
		"enabled twice":        {false, say(SetVringEnable, u32(0, 2))},
		"all features":         {true, say(SetFeatures, u64(RingFeatures|1<<15))},
		"and one more":         {false, say(SetFeatures, u64(RingFeatures|1<<15|1))},
		"one protocol feature": {true, say(SetProtocolFeatures, u64(1))},
		"an unknown one":       {false, say(SetProtocolFeatures, u64(1<<6))},
	} {
		if (c.err == nil) != c.ok {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	r := newRecorder()
	c := NewConversation(r)
	c.protocol = protocolFeatures
	for mtu, ok := range map[uint64]bool{67: false, 68: true, 65535: true, 65536: false, 1 << 40: false} {
		out, err := c.Handle(nil, Header{NetSetMTU, protocolVersion | flagNeedReply, 8}, u64(mtu), new(FDs))
		if err != nil || len(out) != HeaderSize+8 || (out[HeaderSize] == 0) != ok || ok && r.mtu != int(mtu) {
			t.Errorf("an MTU of %d: %x, %v", mtu, out, err)
		}
	}
	for status, want := range map[uint64]uint64{0xf: 0xf, 0x1ff: 0xff} {
		_, _ = c.Handle(nil, Header{SetStatus, protocolVersion, 8}, u64(status), new(FDs))
		if out, err := c.Handle(nil, Header{GetStatus, protocolVersion, 0}, nil, new(FDs)); err != nil || !bytes.Equal(out[HeaderSize:], u64(want)) {
			t.Errorf("status %#x is %x, %v", status, out, err)
		}
	}
	_, _ = c.Handle(nil, Header{ResetDevice, protocolVersion, 0}, nil, new(FDs))
	if out, err := c.Handle(nil, Header{GetStatus, protocolVersion, 0}, nil, new(FDs)); err != nil || !bytes.Equal(out[HeaderSize:], u64(0)) {
		t.Errorf("after a reset the status is %x, %v", out, err)
	}
}

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		flags, size uint32
		ok          bool
	}{
		{1, 0, true}, {1 | flagNeedReply, maxPayload, true},
		{0, 0, false}, {2, 0, false}, {1 | flagReply, 0, false}, {1, maxPayload + 1, false}, {1, 1 << 31, false},
	} {
		if _, err := ParseHeader(u32(5, c.flags, c.size)); (err == nil) != c.ok {
			t.Errorf("flags %#x, size %d: %v", c.flags, c.size, err)
		}
	}
}

// FuzzMessages: whatever comes, each descriptor is owned once, and each request is
// answered at most once.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{1, 0, 0, 2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{5, 2, 72}, append(u32(2, 0), make([]byte, 64)...)...))
	f.Add(append([]byte{12, 1, 8}, u64(1)...))
	f.Add(append([]byte{16, 0, 8}, u64(protocolFeatures)...))
	f.Add(append([]byte{31, 0, 20}, make([]byte, 20)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		r := newRecorder()
		c := NewConversation(r)
		given := 0
		// A message is its number, how many descriptors come with it, the length
		// of its payload, and that.
		for len(script) >= 3 {
			request, n, size := Request(script[0]), int(script[1]%10), int(script[2])
			flags := uint32(script[1]) >> 4 << 3
			script = script[3:]
			size = min(size, len(script))
			payload := script[:size:size]
			script = script[size:]
			h, err := ParseHeader(u32(uint32(request), 1|flags&flagNeedReply, uint32(size)))
			if err != nil {
				t.Fatal(err)
			}
			var fds FDs
			for range n {
				given++
				fds.List = append(fds.List, given)
			}
			out, err := c.Handle(nil, h, payload, &fds)
			r.owned = append(r.owned, fds.List...)
			if err != nil {
				if len(out) > 0 {
					t.Fatalf("%v: answered and failed: %x, %v", request, out, err)
				}
				break
			}
			answer := 8
			if request == GetInflightFD {
				answer = 24
			}
			if len(out) > 0 && (len(out) != HeaderSize+answer || !bytes.Equal(out[:HeaderSize], u32(uint32(request), 5, uint32(answer)))) {
				t.Fatalf("%v: answered with %x", request, out)
			}
		}
		slices.Sort(r.owned)
		for i, fd := range r.owned {
			if fd != i+1 {
				t.Fatalf("of %d descriptors these have an owner: %v", given, r.owned)
			}
		}
		if len(r.owned) != given {
			t.Fatalf("of %d descriptors these have an owner: %v", given, r.owned)
		}
	})
}
