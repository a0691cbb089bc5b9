package events

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
)

// flags are the flags of `vswitch events`, and the parameters of the call.
type flags struct {
	Follow bool   `json:"follow,omitempty" help:"show what happens from now on, until interrupted; with --since also what happened"`
	Since  string `json:"since,omitempty" arg:"SEQ|TIME" help:"begin after the event SEQ, or EPOCH-SEQ, or this long ago, such as 5m"`
	Port   string `json:"port,omitempty" arg:"PORT" help:"show what happens to this port alone"`
	Type   Types  `json:"type,omitempty" arg:"TYPE" help:"show events of this type or family alone; can be given several times"`
}

// Types are types and families of events.
type Types []string

// Values implements setting.Enum.
func (Types) Values() []string {
	all := api.EventFamilies()
	for _, t := range api.EventTypes {
		if t.Name != api.EventLost { // nobody can do without it
			all = append(all, t.Name)
		}
	}
	return all
}

var command = feature.Command{
	Name:  "events",
	Usage: "show what happened to the switch, and what happens",
	Description: `Shows what happened since the daemon started, as far as it remembers: the last few
thousand events. With --follow, shows what happens from now on.

Each event has a number, and each run of the daemon an epoch. A program that reads
events goes on where it was with --since EPOCH-SEQ; if those events are forgotten, or
of an earlier run, the command says so and fails. A reader that is too slow gets a
"lost" event with the number of events it missed. -o json prints one event a line.

` + typesHelp() + `
Example:

    vswitch events --since 5m --port vm0
    vswitch events --follow --type port.state --type fdb -o json`,
	Flags: flags{},
	Check: func(c *feature.Call) error {
		f := c.Flags.(flags)
		if _, err := time.ParseDuration(f.Since); f.Since == "" || err == nil {
			return nil
		}
		_, err := api.ParseCursor(f.Since)
		return err
	},
	Run: run,
}

func typesHelp() string {
	s := "The types:\n\n"
	for _, t := range api.EventTypes {
		s += fmt.Sprintf("    %-16s %s\n", t.Name, t.Words)
	}
	return s
}

func run(c *feature.Call) error {
	f := c.Flags.(flags)
	body, err := c.Client.Stream(c.Context, http.MethodGet, "/v1/events?"+feature.Values(f).Encode(), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := copyEvents(c.Out, body, c.JSON); err != nil {
		return err
	}
	if f.Follow {
		return feature.StreamEnded("the events", nil)
	}
	return nil
}

// copyEvents prints the lines of JSON in r.
func copyEvents(w io.Writer, r io.Reader, asJSON bool) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		} else if err != nil {
			return feature.StreamEnded("the events", err)
		}
		if !asJSON {
			var e api.Event
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("an event is not understood: %w", err)
			}
			line = []byte(text(&e) + "\n")
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
}

// text returns an event as people read it.
func text(e *api.Event) string {
	s := fmt.Sprintf("%s  %d  %s", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Seq, e.Type)
	if e.Port != "" {
		s += "  " + e.Port
	}
	if e.MAC != 0 {
		s += fmt.Sprintf("  %v vlan %d", e.MAC, e.VLAN)
	} else if e.VLAN != 0 {
		s += fmt.Sprintf("  vlan %d", e.VLAN)
	}
	switch {
	case e.From != "" && e.To != "":
		s += "  " + e.From + " → " + e.To
	case e.From != "":
		s += "  from " + e.From
	case e.To != "":
		s += "  " + e.To
	}
	if e.Address != "" {
		s += "  " + e.Address
	}
	switch {
	case e.Count == 1:
		s += "  1 " + counted(e.Type)
	case e.Count != 0:
		s += fmt.Sprintf("  %d %ss", e.Count, counted(e.Type))
	}
	if len(e.Keys) > 0 {
		s += "  " + strings.Join(e.Keys, ", ")
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?' // what a terminal might obey
		}
		return r
	}, s)
}

// counted names what the count of a type of event counts.
func counted(kind string) string {
	switch kind {
	case api.EventGuardViolation:
		return "frame"
	case api.EventConfigApplied:
		return "change"
	}
	return "event"
}
