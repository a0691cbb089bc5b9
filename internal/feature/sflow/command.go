package sflow

import (
	"io"
	"strconv"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/table"
)

var command = feature.Command{
	Name:  "sflow",
	Usage: "list the collectors of sFlow and the sampled ports",
	Description: `Lists the collectors to which the switch sends samples of frames and counters of ports
(sFlow version 5), and the ports with their ifIndex, the rate of samples, and what was
sent. Sampled ports stay on the kernel's fast path, where one in so many frames is
drawn as it is elsewhere.

Example:

    vswitch set --sflow-collector 192.0.2.10 --sflow-rate 1000 --sflow-drops 100
    vswitch set-port vm0 --sflow off
    vswitch sflow`,
	Run: list,
}

func list(c *feature.Call) error {
	var st Status
	if err := c.Client.Do(c.Context, "GET", "/v1/sflow", nil, &st); err != nil {
		return err
	}
	return c.Show(st, func(w io.Writer) {
		table.Row(w, "COLLECTOR", "DATAGRAMS", "ERRORS", "ERROR")
		for _, one := range st.Collectors {
			table.Row(w, one.Address, one.Datagrams, one.Errors, table.Dash(one.Error))
		}
		table.Row(w)
		table.Row(w, "PORT", "INDEX", "ONE IN", "SAMPLES", "LOST", "DROPS")
		for _, p := range st.Ports {
			oneIn := "off"
			if p.OneIn != 0 {
				oneIn = strconv.FormatUint(uint64(p.OneIn), 10)
			}
			table.Row(w, p.Name, p.Index, oneIn, p.Samples, p.Lost, p.Drops)
		}
	})
}
