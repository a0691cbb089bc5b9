package trace

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/internal/table"
	"github.com/vswitch/vswitch/port"
)

// flags say which frame to trace.
type flags struct {
	From string `json:"from" arg:"MAC" help:"sender" default:"the station that is known behind the port"`
	To   string `json:"to" arg:"MAC" help:"destination" default:"ff:ff:ff:ff:ff:ff"`
	VLAN uint16 `json:"vlan" arg:"VID" max:"4094" min:"1" help:"VLAN of the frame's tag" default:"none"`
	Hex  string `json:"hex" arg:"BYTES" help:"the whole frame in hexadecimal, in place of all others"`
	Pcap string `json:"pcap" arg:"FILE[:N]" help:"the first or N-th packet of a pcapng or pcap file, in place of all others"`
	Last bool   `json:"last" help:"the last frame that the port dropped, in place of all others"`
}

var command = feature.Command{
	Name:  "trace",
	Usage: "see what the switch would do with a frame, and why",
	Description: `Passes a frame through the stages of the switch as if it had come by PORT just now, without
sending it or learning its sender, and prints what each stage decided and which setting
made it so. The last line says whether a copy leaves, and what would let it pass.

FRAME is arp, icmp, tcp or udp, each with two addresses, or nothing; the switch decides
by MAC addresses and VLANs, and only guards look at the rest. Whether the device that a
copy leaves by has room for it, and whether somebody listens there, is not known.

Exit status: 0 if a copy leaves, 1 if none does.

Example:

    vswitch trace vm0 --from 52:54:00:00:00:01 --to 52:54:00:00:00:02
    vswitch trace vm0 --vlan 20 arp 10.0.0.1 10.0.0.2
    vswitch trace vm0 --to 52:54:00:00:00:02 tcp 10.0.0.1:4000 10.0.0.2:80
    vswitch trace vm0 --last`,
	Args:  []string{"PORT", "[FRAME...]"},
	Flags: flags{},
	Check: func(c *feature.Call) error {
		f := c.Flags.(flags)
		n := 0
		for _, given := range []bool{f.Hex != "", f.Pcap != "", f.Last, f.From != "" || f.To != "" || f.VLAN != 0 || c.Args[1] != ""} {
			if given {
				n++
			}
		}
		if n > 1 {
			return errors.New("the frame is given twice; give --hex, --pcap, --last, or what it is made of")
		}
		for _, mac := range []string{f.From, f.To} {
			if _, err := port.ParseMAC(mac); mac != "" && err != nil {
				return err
			}
		}
		if _, err := fromHex(f.Hex); f.Hex != "" && err != nil {
			return err
		}
		_, err := build(1, port.Broadcast, 0, strings.Fields(c.Args[1]))
		return err
	},
	Run: run,
}

// run traces a frame and prints the answer.
func run(c *feature.Call) error {
	wire, err := frameOf(c)
	if err != nil {
		return err
	}
	var a Answer
	if err := c.Client.Do(c.Context, "POST", "/v1/trace", request{Port: c.Args[0], Frame: hex.EncodeToString(wire)}, &a); err != nil {
		return err
	}
	if err := c.Show(a, func(w io.Writer) {
		for _, s := range a.Steps {
			table.Row(w, s.Stage, s.Subject, s.Result)
		}
		table.Row(w, "verdict", a.Verdict)
	}); err != nil {
		return err
	}
	if !a.Delivered {
		return feature.ErrNegative
	}
	return nil
}

// frameOf returns the frame that the user asks about.
func frameOf(c *feature.Call) ([]byte, error) {
	f := c.Flags.(flags)
	switch {
	case f.Hex != "":
		return fromHex(f.Hex)
	case f.Pcap != "":
		return fromFile(f.Pcap)
	case f.Last:
		return lastDropped(c)
	}
	// Any address may be asked about, also one that no station has.
	from, _ := port.ParseMAC(f.From) // Check has read both
	if f.From == "" {
		var err error
		if from, err = stationBehind(c); err != nil {
			return nil, err
		}
	}
	to, _ := port.ParseMAC(cmp.Or(f.To, port.Broadcast.String()))
	return build(from, to, f.VLAN, strings.Fields(c.Args[1]))
}

// fromHex returns the frame that is written in hexadecimal.
func fromHex(s string) ([]byte, error) {
	digits := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ':' || r == '\n' })
	wire, err := hex.DecodeString(strings.Join(digits, ""))
	if err != nil || len(wire) == 0 {
		return nil, errors.New("--hex: it is no hexadecimal; write it as: ffffffffffff 525400000001 88b5 0000")
	}
	return wire, nil
}

// stationBehind returns the station that the FDB knows behind the port: the one heard last.
func stationBehind(c *feature.Call) (mac port.MAC, err error) {
	entries, err := c.Client.FDB(c.Context)
	if err != nil {
		return 0, err
	}
	age := int64(-1)
	for _, e := range entries {
		if e.Port == c.Args[0] && (age < 0 || e.AgeS < age) {
			mac, age = e.MAC, e.AgeS
		}
	}
	if mac == 0 {
		if _, err := c.Client.Port(c.Context, c.Args[0]); err != nil {
			return 0, err // there is no such port, perhaps
		}
		return 0, fmt.Errorf("no station is known behind %s; name the sender with --from", c.Args[0])
	}
	return mac, nil
}

// lastDropped returns the last frame that the port dropped. Of a long one only the beginning
// is known; the rest is zeros.
func lastDropped(c *feature.Call) ([]byte, error) {
	var all []struct {
		Direction port.Direction `json:"direction"`
		Length    int            `json:"length"`
		Data      string         `json:"data"`
	}
	if err := c.Client.Do(c.Context, "GET", "/v1/drops/recent?"+url.Values{"port": {c.Args[0]}}.Encode(), nil, &all); err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Direction != port.OnInput {
			continue
		}
		wire, err := hex.DecodeString(all[i].Data)
		if err != nil {
			return nil, err
		}
		if n := min(all[i].Length, 9216) - len(wire); n > 0 {
			wire = append(wire, make([]byte, n)...)
		}
		return wire, nil
	}
	return nil, fmt.Errorf("%s has dropped no frame that came by it; `vswitch drops` shows what was dropped", c.Args[0])
}

// fromFile returns a packet of a file named FILE or FILE:N.
func fromFile(name string) ([]byte, error) {
	number := 1
	if at := strings.LastIndexByte(name, ':'); at >= 0 {
		if n, err := strconv.Atoi(name[at+1:]); err == nil && n > 0 {
			name, number = name[:at], n
		}
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := pcapng.NewReader(file)
	for n := 0; ; {
		p, err := r.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("%s has %d packets, not %d", name, n, number)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if p == nil {
			continue
		}
		if n++; n == number {
			return append([]byte{}, p.Data...), nil
		}
	}
}
