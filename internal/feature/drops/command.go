package drops

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
	"github.com/vswitch/vswitch/port"
)

// flags are those of the command.
type flags struct {
	query
	Follow bool   `json:"follow" short:"f" help:"show what is dropped from now on, until Ctrl-C"`
	Count  uint32 `json:"count" short:"c" arg:"N" min:"1" help:"end after so many frames" default:"no end"`
	Write  string `json:"write" short:"w" arg:"FILE" help:"write the beginnings of the frames as pcapng, to standard output if FILE is -" default:"print a line for each frame"`
}

var command = feature.Command{
	Name:  "drops",
	Usage: "see which frames are dropped, and why",
	Description: `Shows the last frames that the switch dropped: of each port and reason a few. With
--follow it shows those that are dropped from now on, ten a second of each port and
reason at most, so that a flood of one hides no other; (+N) counts those in between.
Each has the port that dropped it, the direction (in: the frame came by the port, out: it
was to leave by it), and the reason. vswitch(8) lists all reasons, and ` + "`vswitch stats`" + `
counts all drops. ` + "`vswitch trace PORT --last`" + ` tells which setting dropped the last one.

The kernel's fast path drops frames by itself: from one isolated port to another, to a
station behind the same port, beyond --rate-in, and what a full TAP has no room for. Those
are seen with --follow only.

Example:

    vswitch drops --port vm0
    vswitch drops --follow --reason vlan_filtered --filter 'host 10.0.0.1'
    vswitch drops --follow -w drops.pcapng`,
	Flags: flags{},
	Check: func(c *feature.Call) error {
		f := c.Flags.(flags)
		if f.Write == "-" && c.JSON {
			return errors.New("-w - writes pcapng to standard output; leave out -o json")
		}
		if f.Filter == "" {
			return nil
		}
		_, err := pfilter.Compile(f.Filter)
		return err
	},
	Run: run,
}

// run shows recent drops, or follows.
func run(c *feature.Call) (err error) {
	f := c.Flags.(flags)
	to := &printer{out: c.Out, json: c.JSON, most: uint64(f.Count)}
	if f.Write != "" {
		file := os.Stdout
		if f.Write != "-" {
			// The frames are the guests' secrets.
			if file, err = os.OpenFile(f.Write, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, file.Close()) }()
		}
		to.file, to.ifaces = file, make(map[string]int)
		if _, err := file.Write(pcapng.AppendSection(nil, "vswitch")); err != nil {
			return err
		}
	}
	path := "?" + feature.Values(f.query).Encode()
	if f.Follow {
		return follow(c, path, to)
	}
	var all []Dropped
	if err := c.Client.Do(c.Context, "GET", "/v1/drops/recent"+path, nil, &all); err != nil {
		return err
	}
	if n := int(f.Count); n != 0 && len(all) > n {
		all = all[len(all)-n:]
	}
	if c.JSON && to.file == nil {
		return c.Show(all, nil)
	}
	for i := range all {
		if err := to.print(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

// follow shows what is dropped until the user or --count ends it.
func follow(c *feature.Call, query string, to *printer) error {
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	body, err := c.Client.Stream(ctx, "GET", "/v1/drops/follow"+query, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	fmt.Fprintln(c.Err, "following; Ctrl-C ends it")
	for d := json.NewDecoder(bufio.NewReader(body)); ; {
		var one Dropped
		err := d.Decode(&one)
		switch {
		case ctx.Err() != nil, errors.Is(err, context.Canceled):
			return nil // the user ended it
		case err == io.EOF:
			return feature.StreamEnded("the drops", nil)
		case err != nil:
			return feature.StreamEnded("the drops", err)
		}
		if err := to.print(&one); err != nil || to.printed == to.most && to.most != 0 {
			return err
		}
	}
}

// printer prints dropped frames.
type printer struct {
	out     io.Writer
	json    bool
	file    *os.File       // nil: text
	ifaces  map[string]int // of the file, by port
	most    uint64         // 0: no limit
	printed uint64
}

// print writes one dropped frame.
func (p *printer) print(d *Dropped) error {
	p.printed++
	direction := map[port.Direction]string{port.OnInput: "in", port.OnOutput: "out"}[d.Direction]
	switch {
	case p.file != nil:
		return p.write(d)
	case p.json:
		e := json.NewEncoder(p.out)
		e.SetEscapeHTML(false)
		return e.Encode(d)
	}
	more := ""
	if d.Missed > 0 {
		more = fmt.Sprintf(" (+%d)", d.Missed)
	}
	_, err := fmt.Fprintf(p.out, "%s %s %-3s %s%s  %s  (%s)\n", d.Time.Local().Format("15:04:05.000000"), d.Port, direction, d.Reason, more, d.Frame, d.Words)
	return err
}

// write appends one dropped frame to the file.
func (p *printer) write(d *Dropped) error {
	var b []byte
	number, ok := p.ifaces[d.Port]
	if !ok {
		number = len(p.ifaces)
		p.ifaces[d.Port] = number
		b = pcapng.AppendInterface(b, &pcapng.Interface{Name: d.Port, SnapLen: snapLen})
	}
	direction := pcapng.In
	if d.Direction == port.OnOutput {
		direction = pcapng.Out
	}
	b = pcapng.AppendPacket(b, &pcapng.Packet{
		Interface: number, Time: time.Unix(0, d.Time.UnixNano()), Direction: direction,
		Data: d.Data, Len: d.Length, Comment: "dropped: " + d.Reason + " (" + d.Words + ")", Fault: pcapng.FaultOf(d.Reason), Lost: d.Missed,
	})
	_, err := p.file.Write(b)
	return err
}
