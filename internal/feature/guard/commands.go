package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/table"
	"github.com/vswitch/vswitch/port"
)

// addFlags are the flags of `guard add`.
type addFlags struct {
	MAC  string `json:"mac,omitempty" arg:"MAC" default:"the port's first" help:"the MAC address that the address belongs to"`
	VLAN uint16 `json:"vlan,omitempty" arg:"VID" min:"1" max:"4094" default:"the port's, if it has one" help:"the VLAN of the address"`
}

var commands = []feature.Command{
	{
		Name: "guard", Usage: "see and change the addresses of guarded ports",
		Description: "A port with --guard on accepts only frames whose senders its VM has: MAC address, IPv4 and IPv6\n" +
			"addresses, also inside ARP, neighbour discovery and DHCP. Addresses come from the port's settings, from\n" +
			"`guard add`, or are learned. docs/guard.md tells more.\n\nExample:\n\n    vswitch guard list",
	}, {
		Name: "guard list", Usage: "list the addresses of guarded ports", Args: []string{"[PORT]"},
		Description: "Lists the addresses that guarded ports may use, where each comes from, and how long it is valid.\n" +
			"A tentative one counts once nobody has objected for a second. VLAN 0 stands for every VLAN of the\n" +
			"port.\n\nExample:\n\n    vswitch guard list vm0",
		Run: func(c *feature.Call) error {
			path := "/v1/guard"
			if c.Args[0] != "" {
				path += "/" + url.PathEscape(c.Args[0])
			}
			return show(c, http.MethodGet, path, nil)
		},
	}, {
		Name: "guard show", Usage: "count what happened to the addresses of guarded ports", Args: []string{"[PORT]"},
		Description: "Shows how many addresses guarded ports have, and how many they learned, lost, and did not get.\n" +
			"REFUSED counts addresses beyond the limit, of others, protected ones, and those in no prefix in which\n" +
			"VMs form addresses.\n\nExample:\n\n    vswitch guard show vm0",
		Run: func(c *feature.Call) error {
			var all []Counters
			if err := c.Client.Do(c.Context, http.MethodGet, "/v1/guards?"+feature.Values(which{c.Args[0]}).Encode(), nil, &all); err != nil {
				return err
			}
			return c.Show(all, func(w io.Writer) {
				table.Row(w, "PORT", "MODE", "BOUND", "TENTATIVE", "LEARNED", "EXPIRED", "DISPLACED", "ENDED", "DEFENDED", "UNMATCHED", "REFUSED: LIMIT", "CONFLICT", "PROTECTED", "PREFIX")
				for _, x := range all {
					r := x.Refused
					table.Row(w, x.Port, x.Mode, x.Bound, x.Tentative, x.Learned, x.Expired, x.Displaced, x.Ended, x.Defended, x.Unmatched, r.Limit, r.Conflict, r.Protected, r.Prefix)
				}
			})
		},
	}, {
		Name: "guard add", Usage: "give a guarded port an address", Args: []string{"PORT", "ADDRESS"}, Flags: addFlags{},
		Description: "Gives a guarded port a static address, beside those of --guard-address. It stays until `guard del`.\n\n" +
			"Example:\n\n    vswitch guard add vm0 192.0.2.10",
		Check: func(c *feature.Call) error {
			f := c.Flags.(addFlags)
			if f.MAC == "" {
				return nil
			}
			_, err := port.ParseStation(f.MAC)
			return err
		},
		Run: func(c *feature.Call) error {
			f := c.Flags.(addFlags)
			a := address{Address: c.Args[1], VLAN: f.VLAN}
			if f.MAC != "" {
				a.MAC, _ = port.ParseMAC(f.MAC) // Check has read it
			}
			return c.Client.Do(c.Context, http.MethodPost, path(c, "add"), a, nil)
		},
	}, {
		Name: "guard del", Usage: "take an address from a guarded port", Args: []string{"PORT", "ADDRESS"},
		Description: "Takes a learned address, or one of `guard add`, from a guarded port. Its station can have it learned\n" +
			"again. Addresses of the port's settings go with `set-port`.\n\nExample:\n\n    vswitch guard del vm0 192.0.2.10",
		Run: func(c *feature.Call) error {
			return remove(c, "del", address{Address: c.Args[1]})
		},
	}, {
		Name: "guard flush", Usage: "take all learned addresses from a guarded port", Args: []string{"PORT"},
		Description: "Takes all learned addresses from a guarded port. Its station is cut off until they are learned again.\n\n" +
			"Example:\n\n    vswitch guard flush vm0",
		Run: func(c *feature.Call) error { return remove(c, "flush", nil) },
	}, {
		Name: "guard export", Usage: "print a port's addresses for `guard import`", Args: []string{"PORT"},
		Description: "Prints the learned and added addresses of a guarded port as JSON. `guard import` gives them to a port of\n" +
			"another switch, to which the VM migrates.\n\nExample:\n\n    vswitch guard export vm0 > vm0.json",
		Run: func(c *feature.Call) error {
			var e exported
			if err := c.Client.Do(c.Context, http.MethodGet, path(c, "export"), nil, &e); err != nil {
				return err
			}
			out := json.NewEncoder(c.Out)
			out.SetEscapeHTML(false)
			out.SetIndent("", "  ")
			return out.Encode(e)
		},
	}, {
		Name: "guard import", Usage: "give a port the addresses of `guard export`", Args: []string{"PORT"},
		Description: "Reads what `guard export` printed from its standard input and gives these addresses to a guarded port, as\n" +
			"far as its settings allow. Leases end as they would have.\n\nExample:\n\n    vswitch guard import vm0 < vm0.json",
		Run: func(c *feature.Call) error {
			var e exported
			d := json.NewDecoder(io.LimitReader(os.Stdin, maxImport))
			d.DisallowUnknownFields()
			switch err := d.Decode(&e); {
			case errors.Is(err, io.EOF):
				return errors.New("the standard input is empty; it has to be what `guard export` prints")
			case err != nil:
				return fmt.Errorf("the standard input is not what `guard export` prints: %w", err)
			case d.Decode(&struct{}{}) != io.EOF:
				return errors.New("the standard input is not what `guard export` prints: something follows it")
			}
			return show(c, http.MethodPost, path(c, "import"), e)
		},
	}, {
		Name: "guard why", Usage: "tell what the guard does with a frame", Args: []string{"PORT", "FRAME"},
		Description: "Tells what the guard would do with a frame from a port, given in hexadecimal digits from the destination\n" +
			"address on. Nothing is sent or learned.\n\nExample:\n\n    vswitch guard why vm0 ffffffffffff525400123456080600010800060400015254001234560a0000010000000000000a000002",
		Check: func(c *feature.Call) error {
			if c.Args[1] == "" {
				return errors.New("the frame is missing")
			}
			return nil
		},
		Run: func(c *feature.Call) error {
			var v verdict
			if err := c.Client.Do(c.Context, http.MethodPost, path(c, "why"), question{c.Args[1]}, &v); err != nil {
				return err
			}
			return c.Show(v, func(w io.Writer) {
				if v.Pass {
					table.Row(w, "it passes")
					return
				}
				table.Row(w, v.Drop+": "+v.Reason)
			})
		},
	},
}

// maxImport bounds what `guard import` reads, in bytes.
const maxImport = 1 << 20

// show calls the daemon and prints the bindings that it answers with.
func show(c *feature.Call, method, path string, request any) error {
	var all []Binding
	if err := c.Client.Do(c.Context, method, path, request, &all); err != nil {
		return err
	}
	return c.Show(all, func(w io.Writer) {
		table.Row(w, "PORT", "VLAN", "MAC", "ADDRESS", "SOURCE", "STATE", "EXPIRES", "SERVER", "HEARD")
		for _, b := range all {
			table.Row(w, b.Port, b.VLAN, b.MAC, b.Address, b.Source, b.State, seconds(b.ExpiresS, "never"), table.Dash(b.Server), seconds(b.HeardS, "-"))
		}
	})
}

func seconds(s *int64, none string) string {
	if s == nil {
		return none
	}
	return fmt.Sprintf("%ds", *s)
}

// path returns the path of a call about the port that the command names. What cannot be a port's name is not another
// path.
func path(c *feature.Call, call string) string {
	return "/v1/guard/" + url.PathEscape(c.Args[0]) + "/" + call
}

// remove calls the daemon and prints how many addresses it removed.
func remove(c *feature.Call, call string, request any) error {
	var n removed
	if err := c.Client.Do(c.Context, http.MethodPost, path(c, call), request, &n); err != nil {
		return err
	}
	return c.Show(n, func(w io.Writer) { table.Row(w, "REMOVED", n.Removed) })
}
