package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/packet/brief"
	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/internal/packet/pfilter"
)

// flags are those of the command: a query whose filter is an argument.
type flags struct {
	query
	Write string `json:"write" short:"w" arg:"FILE" help:"write a pcapng file, to standard output if FILE is -" default:"print a line for each frame"`
}

var command = feature.Command{
	Name:  "capture",
	Usage: "see frames as they pass",
	Description: `Captures the frames that ports receive and send, until Ctrl-C or --count ends it. A frame
that the switch forwards is seen at each port that it passes, with the VLAN tag that it
has there, and a dropped one with the reason. --write makes a pcapng file with an
interface for each port, in which Wireshark and tcpdump read direction and reason.

Captured frames stay on the kernel's fast path, which copies them. A reader that is too slow
misses frames and is told how many may be missing; it never slows the switch.

FILTER is an expression as of tcpdump:

` + pfilter.Grammar + `

Example:

    vswitch capture --port vm0 --count 10 arp or port 53
    vswitch capture --drops
    vswitch capture --port vm0 -w - | tshark -r -`,
	Args:  []string{"[FILTER...]"},
	Flags: flags{},
	Check: func(c *feature.Call) error {
		f := c.Flags.(flags)
		if f.Filter != "" && c.Args[0] != "" {
			return errors.New("the filter is given twice; give it behind the flags")
		}
		if f.Write == "-" && c.JSON {
			return errors.New("-w - writes pcapng to standard output; leave out -o json")
		}
		text := f.Filter + c.Args[0]
		if text == "" {
			return nil
		}
		_, err := pfilter.Compile(text)
		return err
	},
	Run: run,
}

// run captures until the user or --count ends it.
func run(c *feature.Call) error {
	f := c.Flags.(flags)
	f.Filter += c.Args[0]
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	body, err := c.Client.Stream(ctx, "GET", "/v1/capture?"+feature.Values(f.query).Encode(), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	to := &printer{out: c.Out, json: c.JSON}
	if f.Write != "" {
		to.file = os.Stdout
		if f.Write != "-" {
			// The frames are the guests' secrets.
			if to.file, err = os.OpenFile(f.Write, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
				return err
			}
		}
	}
	fmt.Fprintln(c.Err, "capturing; Ctrl-C ends it")
	err = to.copy(body)
	if f.Write != "" {
		err = errors.Join(err, to.finish())
	}
	if f.Write != "" && f.Write != "-" {
		err = errors.Join(err, to.file.Close())
	}
	fmt.Fprintf(c.Err, "%d frames captured\n", to.frames)
	if to.lost > 0 {
		fmt.Fprintf(c.Err, "%d more were missed, as they were read too slowly; a filter or --snaplen makes fewer or shorter ones\n", to.lost)
	}
	switch {
	case ctx.Err() != nil:
		return nil // the user ended it
	case err == nil && (f.Count == 0 || to.frames < uint64(f.Count)):
		return feature.StreamEnded("the capture", nil)
	}
	return err
}

// printer writes a capture to a file, or as text.
type printer struct {
	out    io.Writer
	json   bool
	file   *os.File // nil: text
	frames uint64
	lost   uint64
	ifaces []counts
	line   []byte
}

// counts are the frames of an interface.
type counts struct{ frames, lost uint64 }

// copy reads a capture to its end.
func (p *printer) copy(from io.Reader) error {
	r := pcapng.NewReader(from)
	for {
		packet, err := r.Next()
		switch {
		case err == io.EOF, errors.Is(err, context.Canceled):
			return nil
		case err != nil:
			return feature.StreamEnded("the capture", err)
		}
		for len(p.ifaces) < r.Interfaces() {
			p.ifaces = append(p.ifaces, counts{})
		}
		if packet != nil {
			p.frames++
			p.lost += packet.Lost
			p.ifaces[packet.Interface].frames++
			p.ifaces[packet.Interface].lost += packet.Lost
		}
		if p.file != nil {
			_, err = p.file.Write(r.Block())
		} else if packet != nil {
			err = p.print(r.Interface(packet.Interface).Name, packet)
		}
		if err != nil {
			return err
		}
	}
}

// finish writes the statistics with which a capture ends.
func (p *printer) finish() error {
	var b []byte
	for number, c := range p.ifaces {
		b = pcapng.AppendStats(b, number, time.Now(), c.frames, c.lost)
	}
	_, err := p.file.Write(b)
	return err
}

// seenFrame is a frame as -o json prints it.
type seenFrame struct {
	Time      time.Time `json:"time"`
	Port      string    `json:"port"`
	Direction string    `json:"direction"` // in, out
	Length    int       `json:"length"`
	Frame     string    `json:"frame"` // in words
	Comment   string    `json:"comment,omitempty"`
}

// print writes a frame as a line.
func (p *printer) print(port string, packet *pcapng.Packet) error {
	direction := "in"
	if packet.Direction == pcapng.Out {
		direction = "out"
	}
	if p.json {
		e := json.NewEncoder(p.out)
		e.SetEscapeHTML(false)
		return e.Encode(seenFrame{
			Time: packet.Time, Port: port, Direction: direction, Length: packet.Len,
			Frame: string(brief.Append(nil, packet.Data, packet.Len)), Comment: packet.Comment,
		})
	}
	p.line = packet.Time.Local().AppendFormat(p.line[:0], "15:04:05.000000")
	p.line = fmt.Appendf(p.line, " %s %-3s ", port, direction)
	p.line = brief.Append(p.line, packet.Data, packet.Len)
	if packet.Comment != "" {
		p.line = append(append(p.line, "  "...), strings.TrimSpace(packet.Comment)...)
	}
	_, err := p.out.Write(append(p.line, '\n'))
	return err
}
