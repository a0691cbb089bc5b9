package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/capture"
	"github.com/vswitch/vswitch/internal/feature/drops"
	"github.com/vswitch/vswitch/internal/feature/events"
	"github.com/vswitch/vswitch/internal/feature/evpn"
	"github.com/vswitch/vswitch/internal/feature/flap"
	"github.com/vswitch/vswitch/internal/feature/guard"
	"github.com/vswitch/vswitch/internal/feature/health"
	"github.com/vswitch/vswitch/internal/feature/lldp"
	"github.com/vswitch/vswitch/internal/feature/loopguard"
	"github.com/vswitch/vswitch/internal/feature/metrics"
	"github.com/vswitch/vswitch/internal/feature/mirror"
	"github.com/vswitch/vswitch/internal/feature/sflow"
	"github.com/vswitch/vswitch/internal/feature/snoop"
	"github.com/vswitch/vswitch/internal/feature/stations"
	"github.com/vswitch/vswitch/internal/feature/stp"
	"github.com/vswitch/vswitch/internal/feature/trace"
	"github.com/vswitch/vswitch/internal/feature/vlan"
	"github.com/vswitch/vswitch/internal/feature/web"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port"
)

// features lists the features of this program's switches. To add one, add a line.
var features = []feature.Feature{
	stations.Feature,
	vlan.Feature,
	stp.Feature,
	snoop.Feature,
	flap.Feature,
	capture.Feature,
	drops.Feature,
	evpn.Feature,
	trace.Feature,
	loopguard.Feature,
	mirror.Feature,
	lldp.Feature,
	sflow.Feature,
	metrics.Feature,
	events.Feature,
	guard.Feature,
	health.Feature,
	web.Feature,
}

// portCatalog returns what the ports of this program's switches can be.
func portCatalog() port.Catalog { return daemon.Catalog(kindList(), features) }

// switchFields returns the settings of a switch.
func switchFields() []setting.Field { return daemon.SettingFields(features) }

// featureCommands returns the commands of the features.
func featureCommands() (all []*cli.Command) {
	families := make(map[string]*cli.Command) // by all of their name
	for _, f := range features {
		for _, c := range f.Commands {
			words := strings.Fields(c.Name)
			name := words[len(words)-1]
			command := featureCommand(c, name)
			if c.Run == nil {
				command = &cli.Command{Name: name, Usage: c.Usage, Description: c.Description, UsageText: "vswitch " + c.Name}
				families[c.Name] = command
			}
			if len(words) == 1 {
				all = append(all, command)
				continue
			}
			of := families[strings.Join(words[:len(words)-1], " ")]
			separator := "|"
			if len(of.Subcommands) == 0 {
				separator = " "
			}
			of.UsageText += separator + name
			of.Subcommands = append(of.Subcommands, command)
		}
	}
	return all
}

func featureCommand(c feature.Command, name string) *cli.Command {
	usage := "vswitch " + strings.Join(append([]string{c.Name}, c.Args...), " ")
	if c.Flags != nil {
		usage += " [flags]"
	}
	return &cli.Command{
		Name: name, Usage: c.Usage, UsageText: usage, ArgsUsage: strings.Join(c.Args, " "), Description: c.Description,
		Flags: ownFlags(c.Flags),
		Action: steering(func(ctx *cli.Context, cl *api.Client, args []string) error {
			call := &feature.Call{Context: ctx.Context, Client: cl, Args: args, Out: ctx.App.Writer, Err: ctx.App.ErrWriter}
			out, err := format(ctx)
			if err != nil {
				return err
			}
			call.JSON = out == "json"
			if call.Flags, err = readOwn(ctx, c.Flags); err != nil {
				return err
			}
			if c.Check != nil {
				if err := c.Check(call); err != nil {
					return usageError(err.Error())
				}
			}
			return c.Run(call)
		}, c.Args...),
	}
}
