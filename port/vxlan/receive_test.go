package vxlan

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/rxbuf"
	"github.com/vswitch/vswitch/port"
)

// hear has a tunnel receive a frame of a station from a host, in network 100.
func hear(t *testing.T, tun *sockets, from string, station port.MAC) port.Drop {
	t.Helper()
	message := make([]byte, headerLen)
	putHeader(message, port.VXLAN, 100)
	message = slices.Concat(message, port.Broadcast.HardwareAddr(), station.HardwareAddr(), []byte("\x88\xb5payload"))
	b := batches.Rent()
	defer batches.Return(b)
	b.n, b.at, b.off = 1, 0, 0
	copy(b.slab[:rxbuf.Stride], message)
	(&vtep{addr: netip.MustParseAddr(from)}).nameAt(&b.names[0])
	control(&b.headers[0], 0)
	b.headers[0].N, b.headers[0].Flags = uint32(len(message)), 0
	q := tun.queues[0]
	q.batch = b
	var frames [port.BatchSize]port.Frame
	if n := q.next(frames[:]); n != 1 {
		t.Fatalf("%d frames", n)
	}
	return frames[0].Drop
}

// learned is which stations a tunnel has learned, and where.
func learned(tun *sockets) string {
	var all []string
	for r := range tun.Remotes() {
		all = append(all, fmt.Sprint(r.Station, "@", r.VTEP))
	}
	return fmt.Sprint(all)
}

// A station that is forgotten is learned again from its next frame.
func TestLearnedAgain(t *testing.T) {
	const want = "[02:00:00:00:00:05@192.0.2.2]"
	tun := quiet(t, port.VXLAN, "100")
	for range 2 {
		if why := hear(t, tun, "192.0.2.2", 0x02_00_00_00_00_05); why != port.DropNone || learned(tun) != want {
			t.Errorf("%v, learned %s", why, learned(tun))
		}
		tun.stations.Flush(func(fdb.Entry) bool { return true })
		if got := learned(tun); got != "[]" {
			t.Errorf("left are %s", got)
		}
	}
}

// What a host had does not pass to the one that takes its place.
func TestStationsOfAHostThatIsGone(t *testing.T) {
	tun := quiet(t, port.VXLAN, "100")
	hear(t, tun, "192.0.2.2", 0x02_00_00_00_00_05)
	list := []port.VNI{{VNI: 100}}
	for _, peers := range [][]netip.Addr{nil, {netip.MustParseAddr("192.0.2.9")}} {
		if err := tun.configure(list, peers, true); err != nil {
			t.Fatal(err)
		}
		if got := learned(tun); got != "[]" || tun.stations.Len() != 0 {
			t.Errorf("with the peers %v, there are %d stations, %s", peers, tun.stations.Len(), got)
		}
	}
}

// Frames of strangers are news at once, and then every ten seconds.
func TestNewsOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tun := quiet(t, port.VXLAN, "100")
		news := make(chan struct{}, 1)
		tun.news = news
		for i, after := range []time.Duration{0, 0, noticeEvery - 1, 1, noticeEvery} {
			time.Sleep(after)
			if why := hear(t, tun, "192.0.2.3", 0x02_00_00_00_00_05); why != port.DropUnknownVTEP {
				t.Error(why)
			}
			if got, want := len(news) == 1, i == 0 || i >= 3; got != want {
				t.Errorf("frame %d is news: %v, want %v", i, got, want)
			}
			for len(news) > 0 {
				<-news
			}
		}
	})
}
