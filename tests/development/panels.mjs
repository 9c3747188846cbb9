// Draws dashboards with the components that Grafana is made of. `window.drawn` becomes {panel: problem, or ""}.
import { Component, createElement as h } from 'react';
import { createRoot } from 'react-dom/client';
import {
  applyFieldOverrides, createTheme, FieldConfigOptionsRegistry, FieldType, getFieldDisplayValues, LoadingState,
  standardTransformers, standardTransformersRegistry, ThemeContext, toDataFrame, transformDataFrame,
} from '@grafana/data';
import {
  BigValue, BigValueColorMode, BigValueGraphMode, BigValueTextMode, GlobalStyles, LegendDisplayMode, PanelChrome, Table, TimeSeries,
} from '@grafana/ui';
import { lastValueFrom } from 'rxjs';

const theme = createTheme({ colors: { mode: window.GIVEN.dark ? 'dark' : 'light' } });
const cell = window.GIVEN.width / 24;
const rowHeight = 38;

const transformers = new Map(Object.values(standardTransformers).map((each) => [each.id, each])); // some have two names
standardTransformersRegistry.setInit(() => [...transformers.values()].map((transformation) => ({
  id: transformation.id, name: transformation.name, transformation, editor: () => null, aliasIds: [],
})));

// What a panel may set of a field; Grafana keeps the editors of these in its own program.
const STANDARD = ['color', 'decimals', 'displayName', 'links', 'mappings', 'max', 'min', 'noValue', 'thresholds', 'unit'];

function settable(panel) {
  const named = [...Object.keys(panel.fieldConfig.defaults.custom ?? {}),
    ...panel.fieldConfig.overrides.flatMap((each) => each.properties.map((property) => property.id))
      .filter((id) => id.startsWith('custom.')).map((id) => id.slice('custom.'.length))];
  const item = (id, path, isCustom) => ({ id, path, isCustom, name: id, editor: () => null, override: () => null,
    process: (value) => value, shouldApply: () => true });
  return new FieldConfigOptionsRegistry(() => [...STANDARD.map((id) => item(id, id, false)),
    ...[...new Set(named)].map((name) => item(`custom.${name}`, name, true))]);
}

// As Grafana's data source for Prometheus makes frames of an answer: a frame for each series, or one table.
function frames(target, results, alone) {
  if (target.format === 'table') {
    const names = [...new Set(results.flatMap((each) => Object.keys(each.metric)))].sort();
    const last = (each) => each.values[each.values.length - 1];
    if (!results.length) return [];
    return [toDataFrame({ refId: target.refId, meta: { type: 'numeric-long' }, fields: [
      { name: 'Time', type: FieldType.time, values: results.map((each) => 1000 * last(each)[0]) },
      ...names.map((name) => ({ name, type: FieldType.string, values: results.map((each) => each.metric[name] ?? '') })),
      { name: alone ? 'Value' : `Value #${target.refId}`, type: FieldType.number, values: results.map((each) => Number(last(each)[1])) },
    ] })];
  }
  return results.map(({ metric, values }) => {
    const named = target.legendFormat && target.legendFormat !== '__auto'
      ? target.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => metric[name] ?? name)
      : JSON.stringify(metric);
    return toDataFrame({ refId: target.refId, name: named, fields: [
      { name: 'Time', type: FieldType.time, values: values.map(([seconds]) => 1000 * seconds), config: {} },
      { name: 'Value', type: FieldType.number, labels: metric, values: values.map(([, value]) => Number(value)),
        config: { displayNameFromDS: named } },
    ] });
  });
}

const replaceVariables = (text) => text;
const timeRange = {
  from: { valueOf: () => window.GIVEN.from_ms }, to: { valueOf: () => window.GIVEN.to_ms },
  raw: { from: String(window.GIVEN.from_ms), to: String(window.GIVEN.to_ms) },
};

function stat(panel, data, width, height) {
  const values = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables, theme, data,
    sparkline: false, timeZone: 'utc',
  });
  if (!values.length) throw new Error('no value');
  const each = width / values.length;
  return h('div', { style: { display: 'flex' } }, values.map((value, place) => h(BigValue, {
    key: place, value: value.display, width: each, height, theme, count: values.length,
    colorMode: panel.options.colorMode ?? BigValueColorMode.Value, graphMode: BigValueGraphMode.None,
    textMode: panel.options.textMode ?? BigValueTextMode.Auto,
  })));
}

function series(panel, data, width, height) {
  if (!data.length) throw new Error('no series');
  const legend = { showLegend: true, displayMode: LegendDisplayMode.List, placement: 'bottom', calcs: [],
    ...panel.options.legend };
  return h(TimeSeries, { frames: data, structureRev: 1, width, height, timeRange, timeZone: 'utc', legend,
    options: { legend }, replaceVariables });
}

function table(panel, data, width, height) {
  if (data.length > 1) throw new Error(`${data.length} tables`);
  const nothing = panel.fieldConfig.defaults.noValue;
  if (!data[0]?.length && !nothing) throw new Error('no row');
  return data[0]?.length ? h(Table, { data: data[0], width, height }) : h('p', {}, nothing);
}

// What Grafana's panels set where a dashboard does not.
const DEFAULTS = {
  timeseries: { color: { mode: 'palette-classic' } },
  stat: { color: { mode: 'thresholds' } },
  table: { color: { mode: 'thresholds' }, thresholds: { mode: 'absolute', steps: [{ color: 'green', value: -Infinity }] } },
};
const KINDS = { stat, timeseries: series, table };

async function draw(panel) {
  const alone = panel.targets.filter((target) => target.format === 'table').length === 1;
  const found = panel.targets.flatMap((target, place) => frames(target, window.GIVEN.found[panel.id][place], alone));
  const moved = await lastValueFrom(transformDataFrame(panel.transformations ?? [], found));
  const defaults = { ...DEFAULTS[panel.type], ...panel.fieldConfig.defaults };
  const fieldConfig = { ...panel.fieldConfig, defaults };
  const data = applyFieldOverrides({ data: moved, fieldConfig, replaceVariables, theme,
    fieldConfigRegistry: settable(panel), timeZone: 'utc' });
  const kind = KINDS[panel.type];
  if (!kind) throw new Error(`@grafana/ui draws no ${panel.type}`);
  return (width, height) => kind(panel, data, width, height);
}

const drawn = {};

class Guarded extends Component {
  state = { problem: '' };
  static getDerivedStateFromError(problem) { return { problem: String(problem) }; }
  componentDidCatch(problem) { drawn[this.props.title] = String(problem); }
  render() { return this.state.problem ? h('p', {}, this.state.problem) : this.props.children; }
}

async function page() {
  const shown = [];
  for (const panel of window.GIVEN.panels) {
    const { x, y, w, h: high } = panel.gridPos;
    const box = { position: 'absolute', left: x * cell, top: y * rowHeight, width: w * cell - 8, height: high * rowHeight - 8 };
    if (panel.type === 'row') {
      shown.push(h('h3', { key: panel.id, style: { ...box, margin: 0 } }, panel.title));
      continue;
    }
    let made = null;
    drawn[panel.title] = '';
    try {
      made = await draw(panel);
    } catch (problem) {
      drawn[panel.title] = problem.message;
    }
    shown.push(h('div', { key: panel.id, style: box }, h(PanelChrome, {
      title: panel.title, description: panel.description, width: box.width, height: box.height, loadingState: LoadingState.Done,
    }, (width, height) => {
      try {
        return h(Guarded, { title: panel.title }, made ? made(width, height) : h('p', {}, drawn[panel.title]));
      } catch (problem) {
        drawn[panel.title] = problem.message;
        return h('p', {}, problem.message);
      }
    })));
  }
  document.body.style.background = theme.colors.background.canvas;
  document.body.style.color = theme.colors.text.primary;
  document.body.style.fontFamily = theme.typography.fontFamily;
  createRoot(document.getElementById('page')).render(h(ThemeContext.Provider, { value: theme }, h(GlobalStyles), shown));
  setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(() => { window.drawn = drawn; })), 1000);
}

page();
