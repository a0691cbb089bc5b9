package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
)

// rate is what a port carried in a second, on average between two samples.
type rate struct {
	Name  string    `json:"name"`
	Kind  string    `json:"kind"`
	State api.State `json:"state"`

	RXBits   float64 `json:"rx_bits_per_s"`
	RXFrames float64 `json:"rx_frames_per_s"`
	TXBits   float64 `json:"tx_bits_per_s"`
	TXFrames float64 `json:"tx_frames_per_s"`
	Drops    float64 `json:"drops_per_s"`      // received and sent
	Reason   string  `json:"reason,omitempty"` // of most drops

	// FastPath is the share of received frames that the kernel handled, from 0 to 1.
	FastPath float64 `json:"fastpath"`
}

// ratesOf returns the rates of the ports in the later of two samples, which were taken so long
// after another. A port that was added meanwhile counts from 0.
func ratesOf(before, after []api.Port, d time.Duration) []rate {
	type key struct {
		name   string
		number uint16
	}
	was := make(map[key]api.Port, len(before))
	for _, p := range before {
		was[key{p.Name, p.Number}] = p
	}
	per := func(now, then uint64) float64 { return perSecond(now, then, d) }
	all := make([]rate, 0, len(after))
	for _, p := range after {
		b := was[key{p.Name, p.Number}]
		r := rate{
			Name: p.Name, Kind: p.Kind, State: p.State,
			RXBits: 8 * per(p.RX.Bytes, b.RX.Bytes), RXFrames: per(p.RX.Frames, b.RX.Frames),
			TXBits: 8 * per(p.TX.Bytes, b.TX.Bytes), TXFrames: per(p.TX.Frames, b.TX.Frames),
		}
		most := 0.0
		for _, c := range []struct{ now, then api.Counters }{{p.RX, b.RX}, {p.TX, b.TX}} {
			for _, why := range slices.Sorted(maps.Keys(c.now.Dropped)) {
				n := per(c.now.Dropped[why], c.then.Dropped[why])
				if r.Drops += n; n > most {
					most, r.Reason = n, why
				}
			}
		}
		if r.RXFrames > 0 {
			r.FastPath = min(1, per(p.FastPath.Frames, b.FastPath.Frames)/r.RXFrames)
		}
		all = append(all, r)
	}
	return all
}

// perSecond returns how fast a counter grows. One that went back is another one of that name,
// which began at 0.
func perSecond(now, then uint64, d time.Duration) float64 {
	if now < then {
		then = 0
	}
	return float64(now-then) / max(d.Seconds(), 1e-3)
}

// rateOrders are the orders of rates, each with the most first.
var rateOrders = map[string]func(a, b *rate) int{
	"traffic":  func(a, b *rate) int { return cmp.Compare(b.RXBits+b.TXBits, a.RXBits+a.TXBits) },
	"rx":       func(a, b *rate) int { return cmp.Compare(b.RXBits, a.RXBits) },
	"tx":       func(a, b *rate) int { return cmp.Compare(b.TXBits, a.TXBits) },
	"drops":    func(a, b *rate) int { return cmp.Compare(b.Drops, a.Drops) },
	"fastpath": func(a, b *rate) int { return cmp.Compare(b.FastPath, a.FastPath) },
	"name":     func(a, b *rate) int { return 0 },
}

// rateOrder names the orders, the usual one first.
var rateOrder = []string{"traffic", "rx", "tx", "drops", "fastpath", "name"}

// sortRates sorts rates; those that are alike stand by name.
func sortRates(all []rate, order string) {
	slices.SortStableFunc(all, func(a, b rate) int {
		return cmp.Or(rateOrders[order](&a, &b), strings.Compare(a.Name, b.Name))
	})
}

// matchRates returns the rates of ports whose name, kind or state contains a text.
func matchRates(all []rate, text string) []rate {
	return slices.DeleteFunc(slices.Clone(all), func(r rate) bool {
		return !strings.Contains(r.Name, text) && !strings.Contains(r.Kind, text) && !strings.Contains(string(r.State), text)
	})
}

// short writes a number in at most five letters: 0, 7, 999, 1.2k, 345M.
func short(v float64) string {
	if v < 999.5 {
		return fmt.Sprintf("%.0f", v)
	}
	for _, unit := range "kMGT" {
		if v /= 1000; v < 9.95 {
			return fmt.Sprintf("%.1f%c", v, unit)
		} else if v < 999.5 {
			return fmt.Sprintf("%.0f%c", v, unit)
		}
	}
	return fmt.Sprintf("%.0fP", v/1000)
}

// share writes the share of the fast path; of a silent port there is none.
func share(r *rate) string {
	if r.RXFrames == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*r.FastPath)
}

// nameWidth is that of the longest name of a port.
const nameWidth = 15

// rateFormat has 76 columns before the reason.
const rateFormat = "%-15s %-10s %9s %7s %9s %7s %7s %5s  %s"

var rateHead = fmt.Sprintf(rateFormat, "NAME", "STATE", "IN bit/s", "frame/s", "OUT bit/s", "frame/s", "DROP/s", "FAST", "REASON")

// rateLine writes a port's rates below rateHead.
func rateLine(r *rate) string {
	return strings.TrimRight(fmt.Sprintf(rateFormat, r.Name, r.State,
		short(r.RXBits), short(r.RXFrames), short(r.TXBits), short(r.TXFrames), short(r.Drops), share(r), r.Reason), " ")
}
