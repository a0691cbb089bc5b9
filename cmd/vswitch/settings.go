package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/setting"
)

// settingFlag is the flag of a setting.
type settingFlag struct {
	documentedFlag
	field setting.Field
	kept  bool // the switch keeps the setting, and an empty value takes it back
}

// documentedFlag is the interface of cli's own flags.
type documentedFlag interface {
	cli.DocGenerationFlag
	cli.VisibleFlag
}

// String returns the flag's line in a command's help.
func (f settingFlag) String() string {
	s := spell(f.field.Flag)
	if f.field.Short != "" {
		s += ", " + spell(f.field.Short)
	}
	if f.field.Arg != "" {
		s += " " + f.field.Arg
	}
	s += "\t" + f.GetUsage()
	if f.field.Default != "" {
		s += " (default: " + f.field.Default + ")"
	}
	return s
}

// IsSliceFlag implements cli.DocGenerationSliceFlag: it reports whether the flag may be
// repeated.
func (f settingFlag) IsSliceFlag() bool { return f.field.List() }

// Values returns the flag's possible values, for completion.
func (f settingFlag) Values() []string { return f.field.Complete }

// newFlag makes the flag of a field. of names the kinds that have it, unless all do.
func newFlag(f setting.Field, of []string, hidden bool) documentedFlag {
	usage := f.Help
	if len(of) > 0 {
		usage = strings.Join(of, ", ") + ": " + usage
	}
	var short []string
	if f.Short != "" {
		short = []string{f.Short}
	}
	switch {
	case f.Bool():
		return &cli.BoolFlag{Name: f.Flag, Aliases: short, Usage: usage, Hidden: hidden}
	case f.List():
		return &cli.StringSliceFlag{Name: f.Flag, Aliases: short, Usage: usage, Hidden: hidden}
	}
	return &cli.StringFlag{Name: f.Flag, Aliases: short, Usage: usage, DefaultText: f.Default, Hidden: hidden}
}

// ownFlags returns the flags of a command that are a struct of settings of that call alone.
func ownFlags(of any) (flags []cli.Flag) {
	if of == nil {
		return nil
	}
	for _, f := range setting.Fields(of) {
		flags = append(flags, settingFlag{documentedFlag: newFlag(f, nil, false), field: f})
	}
	return flags
}

// readOwn returns a command's own flags in a struct of the type that ownFlags got.
func readOwn(c *cli.Context, of any) (any, error) {
	if of == nil {
		return nil, nil
	}
	fields := setting.Fields(of)
	given, err := read(c, fields)
	if err == nil {
		err = refuseZero(c, fields, "")
	}
	if err != nil {
		return nil, err
	}
	if of, err = setting.Merge(of, given); err != nil {
		return nil, usageError(err.Error())
	}
	return of, nil
}

// portFlags returns the flags of port settings. For an existing port, fixed settings are
// hidden; a user who gives one is told why it cannot change.
func portFlags(there bool) (flags []cli.Flag) {
	for _, s := range portCatalog().Settings() {
		flags = append(flags, settingFlag{newFlag(s.Field, s.Kinds, there && s.Fixed), s.Field, true})
	}
	return flags
}

// switchFlags returns the flags of switch settings.
func switchFlags() (flags []cli.Flag) {
	for _, f := range switchFields() {
		flags = append(flags, settingFlag{newFlag(f, nil, false), f, true})
	}
	return flags
}

// settings returns the settings on the command line, of a port that is there or of a new one, from which 0 takes
// nothing back. The daemon finds those that contradict others or that the port's kind lacks.
func settings(c *cli.Context, there bool) (setting.Patch, error) {
	set := setting.Patch{}
	if c.Bool("no-vlan") {
		for _, flag := range []string{"access", "trunk", "qinq"} {
			if c.IsSet(flag) {
				return nil, usagef("--no-vlan takes VLANs off the port; leave --access, --trunk and --qinq out")
			}
			set.Set(flag, nil)
		}
	}
	var fields []setting.Field
	for _, s := range portCatalog().Settings() {
		fields = append(fields, s.Field)
	}
	given, err := read(c, fields)
	if err == nil && !there {
		err = refuseZero(c, fields, "")
	}
	set.Add(given)
	return set, err
}

// refuseZero returns an error if a number on the command line is 0 where its range does not have it. Such a 0 would
// be taken for not set, and so for the default, which few who write it mean. instead says how to ask for the default.
func refuseZero(c *cli.Context, fields []setting.Field, instead string) error {
	for _, f := range fields {
		text := c.String(f.Flag)
		if !c.IsSet(f.Flag) || f.Min <= 0 || text == "" || f.Unsets(text) {
			continue
		}
		if value, err := f.ReadFlag(text); err == nil && string(value) == "0" {
			return usagef("--%s: %v%s", f.Flag, f.OutOfRange(0), instead)
		}
	}
	return nil
}

// read returns those of the given settings that are on the command line.
func read(c *cli.Context, fields []setting.Field) (setting.Patch, error) {
	set := setting.Patch{}
	for _, f := range fields {
		if !c.IsSet(f.Flag) {
			continue
		}
		texts := []string{c.String(f.Flag)}
		switch {
		case f.Bool():
			texts = []string{"off"}
			if c.Bool(f.Flag) {
				texts = []string{"on"}
			}
		case f.List():
			texts = c.StringSlice(f.Flag)
		}
		value, err := f.ReadFlag(texts...)
		if err != nil {
			return nil, usagef("--%s: %v", f.Flag, err)
		}
		set[f.Key] = value
	}
	return set, nil
}

// sent converts a patch to the client's form.
func sent(p setting.Patch) api.Settings {
	all := make(api.Settings, len(p))
	for key, text := range p {
		all[key] = text
	}
	return all
}

// kindsHelp describes the purpose of each kind of port.
func kindsHelp() string {
	var b strings.Builder
	ks := kindList()
	width := 0
	for _, k := range ks {
		width = max(width, len(k.Name()))
	}
	for _, k := range ks {
		for i, line := range strings.Split(k.Describe().Help, "\n") {
			name := k.Name()
			if i > 0 {
				name = ""
			}
			b.WriteString("    " + name + strings.Repeat(" ", width-len(name)+2) + line + "\n")
		}
	}
	return b.String()
}
