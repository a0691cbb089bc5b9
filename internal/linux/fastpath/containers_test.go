package fastpath

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	cilium "github.com/cilium/ebpf/link"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Flags and modes of bpf_skb_adjust_room.
const (
	atMAC     = 1
	fixedGSO  = 1 << 0
	encapIPv4 = 1 << 1
	encapGRE  = 1 << 3
)

// putInto returns a program for the egress of a container that puts its TCP segments into packets of this protocol,
// with so many bytes of headers, as programs of container networks do.
func putInto(proto uint8, headers int32, flags int32) asm.Instructions {
	const ip = -24 // on the stack, behind the frame pointer: the IP header, and that of GRE
	raw := func(b ...byte) int32 { return int32(binary.NativeEndian.Uint16(b)) }
	at := func(ins ...asm.Instruction) asm.Instructions { return ins }
	stack := func(into asm.Register) asm.Instructions {
		return at(asm.Mov.Reg(into, asm.R10), asm.Add.Imm(into, ip))
	}
	var p asm.Instructions
	add := func(all ...asm.Instructions) {
		for _, ins := range all {
			p = append(p, ins...)
		}
	}
	// replace corrects the checksum of the outer header for a word that was changed.
	replace := func(from, to asm.Register) asm.Instructions {
		return at(asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 24), asm.Mov.Reg(asm.R3, from), asm.Mov.Reg(asm.R4, to),
			asm.Mov.Imm(asm.R5, 2), asm.FnL3CsumReplace.Call())
	}
	add(at(asm.Mov.Reg(asm.R6, asm.R1), asm.LoadMem(asm.R1, asm.R6, 16, asm.Word), asm.JNE.Imm(asm.R1, raw(8, 0), "pass"),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 14)), stack(asm.R3),
		at(asm.Mov.Imm(asm.R4, 20), asm.FnSkbLoadBytes.Call(), asm.JNE.Imm(asm.R0, 0, "pass"),
			asm.LoadMem(asm.R1, asm.R10, ip+9, asm.Byte), asm.JNE.Imm(asm.R1, 6, "pass"),
			asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, headers), asm.Mov.Imm(asm.R3, atMAC),
			asm.Mov.Imm(asm.R4, fixedGSO|encapIPv4|flags), asm.FnSkbAdjustRoom.Call(), asm.JNE.Imm(asm.R0, 0, "drop"),
			asm.LoadMem(asm.R7, asm.R10, ip+2, asm.Half), asm.Mov.Reg(asm.R8, asm.R7),
			asm.HostTo(asm.BE, asm.R8, asm.Half), asm.Add.Imm(asm.R8, headers), asm.HostTo(asm.BE, asm.R8, asm.Half),
			asm.StoreMem(asm.R10, ip+2, asm.R8, asm.Half), asm.LoadMem(asm.R9, asm.R10, ip+8, asm.Half),
			asm.StoreImm(asm.R10, ip+9, int64(proto), asm.Byte), asm.StoreImm(asm.R10, ip+20, int64(binary.NativeEndian.Uint32([]byte{0, 0, 8, 0})), asm.Word),
			asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 14)), stack(asm.R3),
		at(asm.Mov.Imm(asm.R4, headers), asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call()),
		replace(asm.R7, asm.R8), at(asm.LoadMem(asm.R8, asm.R10, ip+8, asm.Half)), replace(asm.R9, asm.R8),
		at(asm.Mov.Imm(asm.R0, 0).WithSymbol("pass"), asm.Return(),
			asm.Mov.Imm(asm.R0, 2).WithSymbol("drop"), asm.Return()))
	return p
}

// takeOutOf returns the program for the ingress.
func takeOutOf(proto uint8, headers int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), asm.StoreImm(asm.R10, -8, 0, asm.Word),
		asm.Mov.Imm(asm.R2, 23), asm.Mov.Reg(asm.R3, asm.R10), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 1), asm.FnSkbLoadBytes.Call(),
		asm.LoadMem(asm.R1, asm.R10, -8, asm.Byte), asm.JNE.Imm(asm.R1, int32(proto), "pass"),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, -headers), asm.Mov.Imm(asm.R3, atMAC), asm.Mov.Imm(asm.R4, fixedGSO),
		asm.FnSkbAdjustRoom.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("pass"), asm.Return(),
	}
}

// TestContainers: super-frames of TCP between containers at veths stay whole on the fast path, also in tunnels of the
// containers' kernels and of programs there. Here nobody takes what is handed up, and a super-frame that is lost is sent again in
// small frames, which counters show.
func TestContainers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		proto   uint8 // of the packets that programs make; 0: none
		headers int32
		flags   int32
		device  string // of the kernel, a tunnel
	}{
		{name: "no tunnel"},
		{name: "IP in IP by a program", proto: 4, headers: 20},
		{name: "GRE by a program", proto: 47, headers: 24, flags: encapGRE},
		{name: "VXLAN", device: "udpcsum"},
		{name: "VXLAN without a UDP checksum", device: "noudpcsum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 0)
			var all [2]*testenv.Netns
			macs := [2]port.MAC{macA, macB}
			to := "10.0.0.2"
			for i := range all {
				ns, p, other := testenv.NewNetns(t), fmt.Sprintf("p%d", i), fmt.Sprintf("10.0.0.%d", 2-i)
				all[i] = ns
				r.ns.Run("ip", "link", "add", p, "type", "veth", "peer", "name", "eth0", "address", macs[i].String(), "netns", ns.Name)
				r.ns.Run("ip", "link", "set", p, "up")
				ns.Run("ip", "link", "set", "eth0", "up")
				ns.Run("ip", "addr", "add", fmt.Sprintf("10.0.0.%d/24", i+1), "dev", "eth0")
				ns.Run("ip", "neigh", "add", other, "lladdr", macs[1-i].String(), "dev", "eth0")
				ns.Run("ip", "route", "add", other, "dev", "eth0", "mtu", "1440", "advmss", "1400")
				if c.device != "" {
					to = "10.9.0.2"
					ns.Run("ip", "link", "add", "vx0", "mtu", "1400", "address", macs[i].String(), "type", "vxlan", "id", "1", "dstport", "4789", "dev", "eth0",
						"local", fmt.Sprintf("10.0.0.%d", i+1), "remote", other, c.device)
					ns.Run("ip", "link", "set", "vx0", "up")
					ns.Run("ip", "addr", "add", fmt.Sprintf("10.9.0.%d/24", i+1), "dev", "vx0")
				}
				if c.proto != 0 {
					attachTo(t, ns, ebpf.AttachTCXEgress, putInto(c.proto, c.headers, c.flags))
					attachTo(t, ns, ebpf.AttachTCXIngress, takeOutOf(c.proto, c.headers))
				}
				r.ports = append(r.ports, vswitch.FastPort{
					Number: uint16(i), Device: device{r.ifindex(p), true}, From: true, To: true, PVID: 1, Native: 1, VLANs: vlans(1),
				})
			}
			r.publish(r.ports)
			for i, mac := range macs {
				r.learn(1, mac, uint16(i))
				r.ns.Do(func() {
					program, err := r.path.Attach(r.ports[i].Device.Ifindex())
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { program.Close() })
				})
			}

			const size = 8 << 20
			before, sent := r.path.Counters(0), r.path.Counters(1).TX
			bulk(t, all[0], all[1], to, size)
			now, arrived := r.path.Counters(0), r.path.Counters(1).TX
			frames, bytes := now.Fast-before.Fast, now.RX.Bytes-before.RX.Bytes
			if frames == 0 || bytes < size || bytes/frames < 3*1500 {
				t.Errorf("%d bytes come as %d frames: super-frames do not stay whole", bytes, frames)
			}
			if n := arrived.Frames - sent.Frames; n != frames {
				t.Errorf("%d frames come, and %d leave", frames, n)
			}
		})
	}
}

// attachTo attaches a program at the device of a container.
func attachTo(t *testing.T, ns *testenv.Netns, where ebpf.AttachType, program asm.Instructions) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: program, License: "GPL"})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	ns.Do(func() {
		var eth0 *net.Interface
		var l cilium.Link
		if eth0, err = net.InterfaceByName("eth0"); err == nil {
			l, err = cilium.AttachTCX(cilium.TCXOptions{Interface: eth0.Index, Program: p, Attach: where})
		}
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// bulk sends so many bytes by TCP.
func bulk(t *testing.T, from, to *testenv.Netns, address string, size int64) {
	t.Helper()
	var listener net.Listener
	var conn net.Conn
	var err error
	to.Do(func() { listener, err = net.Listen("tcp4", address+":0") })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	deadline := time.Now().Add(time.Minute)
	from.Do(func() { conn, err = net.DialTimeout("tcp4", listener.Addr().String(), time.Minute) })
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_, _ = in.SetDeadline(deadline), conn.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		done <- err
	}()
	if n, err := io.CopyN(io.Discard, in, size); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, size, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
