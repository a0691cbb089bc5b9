package upgradetest

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

// group is the address of 239.1.2.3.
const group = port.MAC(0x0100_5e01_0203)

// join is a membership report for 239.1.2.3 of IGMPv2 (RFC 2236 section 2).
func join(from port.MAC) []byte {
	sum := func(b []byte) uint16 {
		n := uint32(0)
		for ; len(b) > 1; b = b[2:] {
			n += uint32(binary.BigEndian.Uint16(b))
		}
		return ^uint16(n>>16 + n)
	}
	b := append(append(group.HardwareAddr(), from.HardwareAddr()...), 8, 0)
	b = append(b, 0x45, 0xc0, 0, 28, 0, 0, 0x40, 0, 1, 2, 0, 0, 10, 0, 0, 9, 239, 1, 2, 3)
	binary.BigEndian.PutUint16(b[24:], sum(b[14:34]))
	b = append(b, 0x16, 100, 0, 0, 239, 1, 2, 3)
	binary.BigEndian.PutUint16(b[36:], sum(b[34:]))
	return b
}

// A group goes to its member alone, before, during and after an upgrade, and loses no frame. The
// hosts are not asked again.
func TestUpgradeSnooping(t *testing.T) {
	testenv.Root(t)
	for name, flags := range map[string][]string{
		"fast path": nil,
		"slow path": {"--fastpath", "off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sw := daemontest.Start(t, testenv.NewNetns(t), append([]string{"--snooping", "--querier", "--unregistered", "routers", "--query-response-interval", "200ms"}, flags...)...)
			t.Cleanup(func() { sw.Kill(); sw.Cleanup(t) })
			source, member, other := kinds["tap"](t, sw, "vm0"), kinds["tap"](t, sw, "vm1"), kinds["tap"](t, sw, "vm2")
			testenv.Eventually(t, "groups are filtered, and the member has joined", func() bool {
				if err := member.send(join(mac(1))); err != nil {
					t.Fatal(err)
				}
				mdb, err := sw.Client.MDB(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return len(mdb.Groups) == 1 && slices.ContainsFunc(mdb.Queriers, func(q api.Querier) bool { return q.Family == "ipv4" && q.Filtering })
			})
			f := newFlow(source, member, mac(0), group)
			// Workers get what the snooper knows a little later.
			testenv.Eventually(t, "workers know the member", func() bool {
				is := func(e end) bool {
					for {
						b, err := e.recv(200 * time.Millisecond)
						if err != nil || len(b) > 14 && port.MACFrom(b) == group && port.MACFrom(b[6:]) == mac(0) {
							return err == nil
						}
					}
				}
				if err := source.send(f.frame); err != nil {
					t.Fatal(err)
				}
				return is(member) && !is(other)
			})
			f.start()
			t.Cleanup(f.stop)
			f.more(t, 20)
			var strays atomic.Int32
			quit, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-quit:
						return
					default:
					}
					b, err := other.recv(100 * time.Millisecond)
					switch {
					case errors.Is(err, os.ErrDeadlineExceeded):
					case err != nil:
						t.Error(err)
						return
					case len(b) > 14 && port.MACFrom(b) == group:
						strays.Add(1)
					}
				}
			}()
			for range 2 {
				sw.Upgrade(t)
				if mdb, err := sw.Client.MDB(t.Context()); err != nil || len(mdb.Groups) != 1 || mdb.Groups[0].Group.String() != "239.1.2.3" {
					t.Errorf("after the upgrade: %+v, %v", mdb, err)
				}
				f.more(t, 30)
			}
			close(quit)
			<-done
			wantAll(t, "upgrade", []*flow{f})
			if n := strays.Load(); n > 0 {
				t.Errorf("%d frames of the group came to a port that is no member", n)
			}
		})
	}
}
